from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from turbo4d.compiler.explain import Explanation, edm_levels, explain
from turbo4d.runtime.action import Action
from turbo4d.runtime.errors import OptionError, PlanError
from turbo4d.runtime.policy import ANALYTIC

from tests.compiler.captures import build, exported


@cache
def full_size() -> Explanation:
    """SV4D at 576 x 576, two branches, five frames, eight views; no weights, no memory."""
    model, call = build("sv4d", device="meta")
    return explain(model, (), call)


@cache
def small() -> Explanation:
    model, call = build("multi_view")
    return explain(model, (), call, plan="fast")


def own_call() -> tuple[torch.nn.Module, tuple[()], Any]:
    model, call = build("multi_view")
    return model, (), call


def test_full_size_operations_are_the_published_count() -> None:
    # The count of the original modules, by kind: research notes of the project, within 2 %.
    found = full_size().to_json()
    assert found["params"] == 1_996_625_322
    assert found["flops_per_call"] == pytest.approx(170.9e12, rel=0.002)
    wanted = {"spatial": 36.4, "camera": 36.2, "motion": 36.2, "cross": 8.4, "other": 53.7}
    got = {kind: flops / 1e12 for kind, flops in found["flops_by_kind"].items()}
    assert got == pytest.approx(wanted, rel=0.02)


def test_full_size_structure() -> None:
    info = full_size()
    kinds = [region.kind for region in info.regions]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "step": 1, "core": 1, "level": 3, "chain": 16, "block": 48,
    }  # fmt: skip
    sites = [site.kind for site in info.sites]
    assert {kind: sites.count(kind) for kind in sites} == {
        "spatial": 16, "camera": 16, "motion": 16, "cross": 48,
    }  # fmt: skip
    parents = {region.name: region.parent for region in info.regions}
    assert parents["down.0.1.chain"] == "core"
    assert parents["up.2.2.chain"] == "level.2"
    assert parents["level.3"] == "level.2"
    assert parents["middle.motion"] == "middle.chain"


def test_json_has_exactly_the_fields_of_the_contract() -> None:
    found = json.loads(json.dumps(small().to_json()))
    assert list(found) == [
        "model", "params", "geometry", "sites", "regions", "folded_sites", "flops_per_call",
        "flops_by_kind", "plan", "unclassified", "aside", "prologue", "dead_weights",
    ]  # fmt: skip
    assert list(found["sites"][0]) == [
        "name", "kind", "region", "query_tokens", "key_tokens", "heads", "groups",
    ]  # fmt: skip
    assert list(found["regions"][0]) == ["name", "kind", "parent", "flops", "slot_bytes"]
    assert list(found["plan"]) == [
        "name", "origin", "steps", "variants", "flops_by_step", "cache_peak_bytes", "predicted",
        "slots", "pruned", "left_out",
    ]  # fmt: skip
    assert list(found["plan"]["predicted"]) == [
        "machine", "seconds_by_step", "prologue_seconds", "seconds", "uncached_seconds",
    ]  # fmt: skip
    assert found["geometry"] == {"batch": 2, "views": 3, "frames": 2, "height": 8, "width": 8}
    assert found["model"] == "MultiViewNet"


def test_kinds_add_up_to_the_call() -> None:
    found = small().to_json()
    assert sum(found["flops_by_kind"].values()) == found["flops_per_call"]
    assert set(found["flops_by_kind"]) == {"spatial", "camera", "motion", "cross", "other"}


def test_a_step_costs_what_its_graph_executes() -> None:
    """Without exact passes: the call less the region that it skips, and what only that needs.

    What only several regions together need is no one's own, and gone where all are reused.
    """
    info = small()
    flops = {region.name: region.flops for region in info.regions}
    chains = [region.name for region in info.regions if region.kind == "chain"]
    reuse = Action.parse("reuse")
    rows = ({}, {"core": reuse}, {chains[0]: reuse}, dict.fromkeys(chains, reuse))
    plan = replace(
        info.plan, levels=info.plan.levels[:4], streams={"main": rows}, max_variants=4, exact=False
    )
    plain, exact = (replace(info, plan=replace(plan, exact=exact)) for exact in (False, True))
    whole = info.flops_per_call
    first, core, chain, every = plain.to_json()["plan"]["flops_by_step"]
    assert (first, chain) == (whole, whole - flops[chains[0]])
    assert 0 < core < whole - flops["core"]  # its slot holds the exit: the entry is not needed
    assert 0 < every <= whole - sum(flops[name] for name in chains)
    assert plain.to_json()["prologue"] == {"flops": 0, "bytes": 0, "values": 0}
    assert plain.to_json()["dead_weights"] == []
    costs = zip(exact.cost.by_step, plain.cost.by_step, strict=True)
    assert all(less <= cost for less, cost in costs)


def test_exact_passes_move_operations_into_the_prologue_and_leave_weights_dead() -> None:
    model, call = build("chain", device="meta")
    found = explain(model, (), call, plan="exact").to_json()
    names = [row["name"] for row in found["dead_weights"]]
    assert {name.rpartition("attn2.")[2] for name in names if "attn2" in name} == {
        "to_q.weight", "to_k.weight",
    }  # fmt: skip
    state = model.state_dict()
    assert [row["bytes"] for row in found["dead_weights"]] == [
        state[name].numel() * 4 for name in names
    ]
    assert found["prologue"]["values"] > 0
    step, prologue = found["plan"]["flops_by_step"][0], found["prologue"]["flops"]
    assert 0 < step < found["flops_per_call"]
    assert 0 < prologue < found["flops_per_call"] - step  # what folds is not computed at all


def test_dead_weights_are_those_that_change_nothing() -> None:
    """The reference: every weight that is called dead may be anything, bit for bit."""
    model, call = build("chain")
    names = {row["name"] for row in explain(model, (), call).to_json()["dead_weights"]}
    assert names
    with torch.no_grad():
        before = model(**call)
        for name, parameter in model.named_parameters():
            if name in names:
                parameter.mul_(0.5).add_(0.25)
        assert torch.equal(model(**call), before)
        live = next(p for name, p in model.named_parameters() if name not in names)
        live.add_(0.25)
        assert not torch.equal(model(**call), before)


def test_fitted_weights_are_shown_as_such() -> None:
    info = small()
    texts = ({}, {}, {"core": "reuse(mix=0.5,0.5)"}, {"core": "reuse(1)"}, {}, {"core": "reuse"})
    rows = tuple({name: Action.parse(act) for name, act in row.items()} for row in texts)
    plan = replace(info.plan, levels=info.plan.levels[:6], streams={"main": rows}, max_age=4)
    text = str(replace(info, plan=plan))
    assert re.search(r"2 values .* fitted weights at 2; reuse\(1\) at 3 +core", text), text


def test_what_is_extrapolated_is_shown_with_the_values_it_holds() -> None:
    info = small()
    texts = ({}, {}, {"core": "reuse(1)"}, {"core": "reuse(1)"}, {}, {"core": "reuse"})
    rows = tuple({name: Action.parse(act) for name, act in row.items()} for row in texts)
    plan = replace(info.plan, levels=info.plan.levels[:6], streams={"main": rows}, max_age=4)
    shown = replace(info, plan=plan)
    [core] = [region for region in info.regions if region.name == "core"]
    assert shown.to_json()["plan"]["slots"] == [
        {"region": "core", "values": 2, "bytes": 2 * core.slot_bytes}
    ]
    assert shown.to_json()["plan"]["cache_peak_bytes"] == 2 * core.slot_bytes
    assert shown.cost.by_step[2] == shown.cost.by_step[5]
    text = str(shown)
    assert "slots that are extrapolated" in text
    assert re.search(r"1 +2 values +[\d.]+ kB +reuse\(1\) at 2-3 +core", text), text
    plain = tuple({} for _ in rows)
    assert "extrapolated" not in str(replace(info, plan=replace(plan, streams={"main": plain})))


def test_a_plan_with_contradicting_cells_is_shown_settled() -> None:
    info = small()
    reuse = Action.parse("reuse")
    rows = ({}, {"core": reuse, "stack.0.chain": reuse}, *({} for _ in info.plan.levels[2:]))
    model, call = build("multi_view")
    found = explain(model, (), call, plan=replace(info.plan, streams={"main": rows}))
    assert found.plan.streams["main"][1] == {"core": reuse}
    assert found.to_json()["plan"]["left_out"] == [
        "stream 'main', step 1: reuse of 'stack.0.chain' is left out, since 'core' around it is "
        "reuse."
    ]
    assert "is left out, since 'core'" in str(found)


def test_rows_that_say_the_same_share_a_line() -> None:
    text = str(full_size())
    assert re.search(r"^  48 +cross +5\.\.5184 x 1 +\*\.spatial\.cross, \*\.camera", text, re.M)
    assert re.search(r"^  5 +chain +9\.62 TFLOP +531 MB +down\.0\.\*\.chain, up\.0\.\*", text, re.M)
    assert "48 x attn2.to_q.weight, 48 x attn2.to_k.weight" in text
    assert len(text.splitlines()) <= 70


def test_only_single_keys_fold_and_only_in_exact_plans() -> None:
    model, call = build("chain", device="meta")
    assert explain(model, (), call).to_json()["folded_sites"] == 3
    assert explain(model, (), call, plan="none").to_json()["folded_sites"] == 0
    assert small().to_json()["folded_sites"] == 0


def test_the_text_shows_sites_regions_and_the_plan() -> None:
    text = str(small())
    for part in ("MultiViewNet", "stack.0.camera", "stack.0.chain", "plan 'fast'", "# compute"):
        assert part in text


def test_times_are_of_the_machine_that_was_named() -> None:
    info = explain(*own_call(), machine="h100")
    assert info.machine.name.startswith("h100, float32, from the data sheet, not measured: 60% of")
    assert f"its time as predicted for {info.machine.name}; a run takes" in str(info)
    slower = replace(info, on=replace(info.machine, matmul_flops=1.0))
    assert slower.times.run_s > info.times.run_s
    with pytest.raises(OptionError, match=r"^machine 'abacus' is unknown; there are 'a100', "):
        explain(*own_call(), machine="abacus")


def test_a_preset_says_where_it_comes_from() -> None:
    assert small().plan.origin == ANALYTIC
    assert f"origin: {ANALYTIC}\n" in str(small())
    assert small().to_json()["plan"]["origin"] == ANALYTIC


def test_a_plan_for_another_model_is_refused() -> None:
    model, call = build("video_unet")
    mine, other = small().plan.model, exported("video_unet").fingerprint
    with pytest.raises(PlanError) as caught:
        explain(model, (), call, plan=small().plan)
    assert str(caught.value) == (
        f"plan 'fast' is for model {mine}; this one is {other}. Make a plan for this model."
    )


def test_edm_levels_are_sv4d_s() -> None:
    levels = edm_levels()
    wanted = [700, 510.4, 366.6, 259.0, 179.7, 122.2, 81.26, 52.68, 33.19, 20.24, 11.89]
    assert levels[:11] == pytest.approx(wanted, rel=1e-3)
    assert (len(levels), levels[-1]) == (20, pytest.approx(0.002))
