"""A module and a plan taken apart: each graph that a run can need, what it takes and gives."""

from __future__ import annotations

import dataclasses

import pytest
from turbo4d.compiler.backend import signature_of
from turbo4d.compiler.bundle.part import PartTable
from turbo4d.compiler.bundle.parts import bare_signature
from turbo4d.compiler.bundle.wanted import Wanted, keys_of, notes_on, planned
from turbo4d.compiler.specialise import specialise
from turbo4d.runtime.action import REUSE, Action
from turbo4d.runtime.errors import OptionError, PlanError
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.bundle.networks import SIGMAS, parts

Rows = list[dict[str, Action] | None]


def plan_of(**streams: Rows) -> Plan:
    found = parts().plan
    rows = {name: tuple(rows) for name, rows in streams.items()}
    levels = tuple(SIGMAS[: len(next(iter(rows.values())))])
    return dataclasses.replace(found, name="own", levels=levels, level_unit="sigma", streams=rows)


def test_the_runtime_finds_every_variant_it_can_ask_for() -> None:
    analysis = parts().analysis
    chain = next(region.name for region in analysis.regions if region.kind == "chain")
    one: Rows = [{}, {"core": REUSE}, {}, {chain: REUSE}]
    plan = plan_of(one=one, other=[{}, None, {"core": REUSE}, None])
    plan, check = planned(analysis, Wanted(plan))
    full = [VariantKey((), slots, True) for slots in (("core", chain), ("core",), ())]
    assert full[0] not in check.variants
    keys = keys_of(plan, check)
    assert {*keys} == {*check.variants, *full}
    assert len(keys) == len({*keys})
    assert keys[: len(check.variants)] == check.variants


def test_a_bundle_takes_inputs_alone() -> None:
    whole, bare = signature_of(parts().analysis), parts().signature
    first = whole.kinds.index("input")
    assert bare.names == whole.names[first:] == ("cond_view", "context", "timesteps", "x", "y")
    assert bare.names[bare.sample] == whole.names[whole.sample] == "x"
    assert bare.level is not None
    assert bare.names[bare.level] == "timesteps"
    assert [bare.names[at] for at in bare.conditioning] == [
        whole.names[at] for at in whole.conditioning
    ]
    assert (bare.regions, bare.model) == (whole.regions, whole.model)
    declared = dataclasses.replace(whole, invariant={whole.sample: ((4, 8),)}, level=None)
    assert bare_signature(declared).invariant == {bare.sample: ((4, 8),)}
    assert bare_signature(declared).level is None


def test_rows_say_what_each_placeholder_is() -> None:
    found = parts()
    graphs = {part.name: part for part in found.graphs}
    names = [node.name for node in graphs["core.reuse"].module.graph.find_nodes(op="placeholder")]
    part = graphs["core.reuse"]
    assert [row.name for row in part.takes] == [name for name in names if name not in part.held]
    assert [(row.kind, row.source) for row in part.takes if row.kind == "slot"] == [
        ("slot", "core")
    ]
    assert [(row.kind, row.source) for row in graphs["compute+core.w"].gives] == [
        ("output", "0"), ("slot", "core"),
    ]  # fmt: skip
    hoisted = graphs["prologue"]
    assert [row.source for row in hoisted.gives] == [str(at) for at in range(len(hoisted.gives))]
    keys = (VariantKey(((each.name, REUSE),), (), True) for each in found.signature.regions)
    variants = (specialise(found.analysis, key) for key in keys)
    gapped = next(v for v in variants if v.prologue_indices != (*range(len(v.prologue_indices)),))
    without = PartTable(found.analysis).part("without", gapped)
    parts_of = (*found.graphs, without)
    taken = [row for part in parts_of for row in part.takes if row.kind == "prologue"]
    for row in taken:
        given = hoisted.gives[int(row.source)]
        assert (row.name, row.shape, row.dtype) == (given.name, given.shape, given.dtype)
    assert {name for part in found.graphs for name in part.held.values()} == {*found.weights}
    one = parts("conditional").graphs[-1]
    assert [row.source for row in one.takes if row.kind == "flag"] == ["core"]


def test_a_pruned_variant_takes_two_slots() -> None:
    analysis = parts().analysis
    pruned = next(region for region in analysis.regions if region.pruning is not None)
    relevance = pruned.pruning.relevance  # type: ignore[union-attr]
    key = VariantKey(((pruned.name, Action("prune", keep=0.5)),), (), True, (relevance,))
    part = PartTable(analysis).part("pruned", specialise(analysis, key))
    slots = [row.source for row in part.takes if row.kind == "slot"]
    assert sorted(slots) == sorted([pruned.name, relevance])


def test_what_does_not_fit_is_refused() -> None:
    analysis = parts().analysis
    with pytest.raises(PlanError, match="a preset follows the noise levels and none are known"):
        planned(analysis, Wanted("balanced"))
    with pytest.raises(OptionError) as caught:
        planned(analysis, Wanted(plan_of(main=[{}]), streams=("main",)))
    assert str(caught.value) == (
        "streams are given beside plan 'own', which has its own: 'main'; leave them out."
    )
    with pytest.raises(OptionError, match="streams are given and empty"):
        planned(analysis, Wanted("balanced", levels=SIGMAS, streams={}))
    with pytest.raises(OptionError) as form:
        Wanted("none", form="both")  # type: ignore[arg-type]
    assert str(form.value) == "form is 'both'; choose 'conditional' or 'variants'."
    fitted = dataclasses.replace(plan_of(main=[{}]), weights_sha256="ab" * 32)
    assert notes_on(fitted, analysis)[0].startswith(
        "plan 'own' was fitted to weights abababababab; this network has "
    )
    assert notes_on(plan_of(main=[{}]), analysis) == ()
    one, _ = planned(analysis, Wanted("balanced", levels=SIGMAS, streams="uncond"))
    assert [*one.streams] == ["uncond"]  # one name is no list of its letters
    halves = Wanted("balanced", levels=SIGMAS, streams={"a": range(0, 8, 2), "b": range(1, 8, 2)})
    plan, _ = planned(analysis, halves)
    assert [row is None for row in plan.streams["a"]] == [False, True] * 4
