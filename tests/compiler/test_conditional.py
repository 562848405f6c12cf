"""One graph with a cond for each region gives what an engine for each variant gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.branches import into_cond
from turbo4d.compiler.conditional import branches, conditional
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.flops import count_flops
from turbo4d.compiler.lower.eager import EagerEngine, EagerPrologue
from turbo4d.compiler.lower.inductor import InductorLowering
from turbo4d.compiler.shared_engines import SharedEngines
from turbo4d.compiler.specialise import Variant, specialise
from turbo4d.passes.base import COND, emit
from turbo4d.runtime.action import BYPASS, REUSE, Action
from turbo4d.runtime.engine import Engine
from turbo4d.runtime.errors import PlanError
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.captures import build, exported
from tests.compiler.denoisers import captured
from tests.compiler.legal_plans import Rows, keys_of, legal_rows
from tests.support import flat_args

aten = torch.ops.aten
MIXED: Rows = [
    {},
    {"core": "reuse"},
    {"level.1": "reuse", "down.0.0.chain": "bypass"},
    {"down.0.0.chain": "reuse", "middle.chain": "bypass", "up.1.0.motion": "reuse"},
    {"down.0.0.spatial": "reuse", "down.0.0.camera": "bypass", "up.0.0.chain": "reuse"},
]
Slots = dict[str, list[Tensor]]


def called(engine: Engine, args: Sequence[Tensor], held: Sequence[Tensor], slots: Slots) -> Any:
    """One call on the slots it reads; gives the outputs and the slots by region."""
    left = {name: iter(slots[name]) for name in engine.reads}
    outputs, made = engine(args, held, [next(left[name]) for name in engine.reads])
    written: Slots = {name: [] for name in engine.writes}
    for name, slot in zip(engine.writes, made, strict=True):
        written[name].append(slot)
    return outputs, written


def prologue(analysis: Analysis, args: Sequence[Tensor], exact: bool) -> tuple[Tensor, ...]:
    return EagerPrologue(exact_form(analysis).prologue)(args) if exact else ()


_ALONE: dict[tuple[int, VariantKey], Variant] = {}


def alone(analysis: Analysis, key: VariantKey) -> Variant:
    """A variant's own graph, made once."""
    at = id(analysis), key
    if at not in _ALONE:
        _ALONE[at] = specialise(analysis, key)
    return _ALONE[at]


def compare(
    analysis: Analysis,
    args: Sequence[Tensor],
    keys: Sequence[VariantKey],
    engine: Callable[[VariantKey], Engine],
    bound: float,
) -> None:
    """Every step by a graph of its own and by another engine, each on slots that it wrote."""
    held = prologue(analysis, args, keys[0].exact)
    ours: Slots = {}
    theirs: Slots = {}
    for key in keys:
        wanted, written = called(EagerEngine(alone(analysis, key)), args, held, theirs)
        got, made = called(engine(key), args, held, ours)
        assert made.keys() == written.keys()
        theirs.update(written)
        ours.update(made)
        pairs = [*zip(wanted, got, strict=True)]
        for name in written:
            pairs += zip(written[name], made[name], strict=True)
        for a, b in pairs:
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            assert (a - b).norm() <= bound * a.norm(), key.name


def test_every_variant_of_a_mixed_plan() -> None:
    analysis, args = captured("tiny")[2:]
    keys = keys_of(MIXED, [region.info for region in analysis.regions], exact=True)
    made: list[Variant] = []

    def lower(variant: Variant) -> Engine:
        made.append(variant)
        return EagerEngine(variant)

    engines = SharedEngines(analysis, lower)
    adapters = {key: engines(key) for key in keys}
    compare(analysis, args, keys, adapters.__getitem__, 1e-5)
    assert len(made) == 1
    assert set(made[0].flags) == {name for row in MIXED for name in row}


@cache
def shared(name: str) -> tuple[Analysis, tuple[Tensor, ...], SharedEngines]:
    """A network of float64 and an engine that acts on each of its regions."""
    if name == "mini":
        analysis, args = captured(name, torch.float64)[2:]
    else:
        call = build(name, torch.float64)[1]
        analysis = analyse(exported(name, torch.float64), gates=False)
        args = tuple(flat_args(analysis.capture, (), call))
    engines = SharedEngines(analysis, EagerEngine)
    engines(VariantKey((), tuple(sorted(region.name for region in analysis.regions)), False))
    return analysis, args, engines


@pytest.mark.parametrize("name", ["mini", "mm_dit"])
@settings(max_examples=3)
@given(st.data())
def test_any_legal_plan(name: str, data: st.DataObject) -> None:
    """Regions with two ports as well, and any mix, on one engine that knows none of the plans."""
    analysis, args, engines = shared(name)
    tree = {region.name: region.parent for region in analysis.regions}
    exits = {region.name for region in analysis.regions if not region.residual}
    rows = data.draw(legal_rows(tree, exits, 3))
    keys = keys_of(rows, [region.info for region in analysis.regions])
    compare(analysis, args, keys, engines, 1e-12)


def executed(module: fx.GraphModule, skipped: set[str]) -> int:
    """Operations of a graph, of each cond those of the branch that is taken."""
    total = sum(count_flops(module.graph).values())
    for node in module.graph.find_nodes(op="call_function", target=COND):
        flag, skip, compute = node.args[:3]
        way: Any = skip if flag.name in skipped else compute  # type: ignore[union-attr]
        branch: Any = module.get_submodule(way.target)
        total += executed(branch, skipped)
    return total


@cache
def mixed() -> tuple[Variant, tuple[VariantKey, ...]]:
    analysis = captured("tiny")[2]
    keys = keys_of(MIXED, [region.info for region in analysis.regions], exact=True)
    return conditional(analysis, keys), keys


def test_it_computes_no_more_than_the_variant() -> None:
    whole, keys = mixed()
    for key in keys:
        skipped = {f"skip_{name.replace('.', '_')}" for name, _ in key.actions}
        own = sum(count_flops(alone(captured("tiny")[2], key).module.graph).values())
        assert executed(whole.module, skipped) == own


def run(variant: Variant, slots: Sequence[Tensor], skipped: Sequence[str] = ()) -> Any:
    analysis, args = captured("tiny")[2:]
    flags = [torch.tensor(name in skipped) for name in variant.flags]
    return EagerEngine(variant)(args, prologue(analysis, args, True), [*slots, *flags])


def test_a_skipped_region_is_not_executed() -> None:
    whole, _ = mixed()
    slots = [torch.zeros(value.shape) for value in whole.slot_values]
    entered: Counter[str] = Counter()
    hooks = [
        module.register_forward_hook(lambda *_, name=name: entered.update([name]))
        for name, module in whole.module.named_modules()
        if isinstance(module, fx.GraphModule) and name
    ]
    run(whole, slots, ["core"])
    assert list(entered) == ["skipped_core"]
    entered.clear()
    run(whole, slots, ["middle.chain"])
    assert sum(name.endswith("skipped_middle_chain") for name in entered) == 1
    assert not any(name.endswith("computed_middle_chain") for name in entered)
    assert sum(name.endswith("computed_up_0_0_chain") for name in entered) == 1
    for hook in hooks:
        hook.remove()


def test_a_slot_is_read_where_its_region_is_skipped_and_nowhere_else() -> None:
    whole, _ = mixed()
    poison = [torch.full(tuple(value.shape), torch.nan) for value in whole.slot_values]
    (output,), made = run(whole, poison)
    assert all(tensor.isfinite().all() for tensor in (output, *made))
    (output,), _ = run(whole, poison, ["up.0.0.chain"])
    assert output.isnan().any()


def test_inductor_takes_no_branches() -> None:
    assert InductorLowering().supports(mixed()[0]) == (
        "its segments hold no branches; choose lowering 'eager' or leave conditional off",
    )


def test_a_slot_goes_out_as_it_came_in_where_its_region_is_not_executed() -> None:
    whole, _ = mixed()
    slots = [torch.randn(value.shape) for value in whole.slot_values]
    for skipped in (["core"], ["level.1"], list(whole.flags)):
        _, made = run(whole, slots, skipped)
        around = {region.name: region.parent for region in captured("tiny")[2].regions}
        for name, before, after in zip(whole.reads, slots, made, strict=True):
            outer: str | None = name
            while outer is not None and outer not in skipped:
                outer = around[outer]
            assert torch.equal(before, after) == (outer is not None), name
            assert before.data_ptr() != after.data_ptr()


def test_no_weight_is_held_or_taken_twice() -> None:
    whole, _ = mixed()
    table = captured("tiny")[2].capture.table
    names = [node.name for node in whole.module.graph.find_nodes(op="placeholder")]
    assert names[: len(whole.arg_indices)] == [table[at].name for at in whole.arg_indices]
    assert len(set(names)) == len(names)
    assert list(whole.module.state_dict()) == []
    assert len(list(branches(whole.module))) == 2 * len(whole.flags)


def test_a_region_that_is_only_bypassed_has_no_slot() -> None:
    analysis, args = captured("mini")[2:]
    key = VariantKey((("stack.1.chain", BYPASS), ("stack.2.camera", BYPASS)), (), exact=False)
    whole = conditional(analysis, [key])
    assert (whole.reads, whole.flags) == ((), ("stack.1.chain", "stack.2.camera"))
    engines = SharedEngines(analysis, EagerEngine)
    compare(analysis, args, [key], engines, 1e-5)


def test_an_engine_is_built_anew_for_a_region_that_it_has_no_flag_for() -> None:
    analysis, args = captured("mini")[2:]
    made: list[Variant] = []

    def lower(variant: Variant) -> Engine:
        made.append(variant)
        return EagerEngine(variant)

    engines = SharedEngines(analysis, lower)
    first = engines(VariantKey((), (), exact=False))
    called(first, args, (), {})
    second = engines(VariantKey((("stack.1.chain", BYPASS),), (), exact=False))
    assert len(made) == 1
    called(second, args, (), {})
    called(first, args, (), {})
    assert [variant.flags for variant in made] == [(), ("stack.1.chain",)]


def key(actions: dict[str, Action], *, exact: bool = False) -> VariantKey:
    return VariantKey(tuple(sorted(actions.items())), (), exact)


REFUSED = [
    (
        [key({"stack.1.chain": Action("prune", keep=0.5)})],
        "region 'stack.1.chain' has action prune(0.5); a conditional engine computes a region or "
        "skips it, so leave the option conditional off, or the action out of the plan.",
    ),
    (
        [key({"core": BYPASS})],
        "region 'core' is to be bypassed, but its slot holds its exit; only a region that adds to "
        "its entry can be left out.",
    ),
    (
        [key({}), key({}, exact=True)],
        "a conditional engine is wanted for exact and plain variants; it holds one graph, of "
        "variants that are all exact or all plain.",
    ),
    (
        [],
        "a conditional engine is wanted for no variant; it holds one graph, of variants that are "
        "all exact or all plain.",
    ),
    (
        [key({"core": REUSE, "stack.2.chain": REUSE})],
        "region 'stack.2.chain' is to be reuse inside 'core', whose action is reuse, so it is not "
        "executed; leave one of the two out.",
    ),
]


@pytest.mark.parametrize(("keys", "text"), REFUSED, ids=range(len(REFUSED)))
def test_what_no_flag_can_say_is_refused(keys: list[VariantKey], text: str) -> None:
    with pytest.raises(PlanError) as caught:
        conditional(captured("mini")[2], keys)
    assert str(caught.value) == text


def test_a_value_that_is_read_outside_and_comes_back_is_refused() -> None:
    """Between the two values of the region lies a call that something else reads as well."""
    graph = fx.Graph()
    x, flag = graph.placeholder("x"), graph.placeholder("flag")
    x.meta["val"], flag.meta["val"] = torch.ones(2), torch.tensor(True)
    first = emit(graph, aten.sin.default, x)
    between = emit(graph, aten.cos.default, first)
    second = emit(graph, aten.exp.default, between)
    outside = emit(graph, aten.neg.default, between)
    graph.output((first, second, outside))
    gm = fx.GraphModule(nn.Module(), graph)
    with graph.inserting_before(graph.output_node()):
        pairs = [(value, emit(graph, aten.clone.default, x)) for value in (first, second)]
    with pytest.raises(LowerError) as caught:
        into_cond(gm, flag, "a.chain", pairs, {first, second})
    assert str(caught.value) == (
        "region 'a.chain' cannot be a branch: %getitem reads one of its values and is read inside "
        "it; leave the region out of a conditional plan."
    )
