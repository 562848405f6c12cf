from __future__ import annotations

import json
from functools import cache

import pytest
from turbo4d.compiler.explain import Explanation, edm_levels, explain
from turbo4d.runtime.errors import PlanError

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
        "core": 1, "level": 3, "chain": 16, "block": 48,
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
        "flops_by_kind", "plan", "unclassified",
    ]  # fmt: skip
    assert list(found["sites"][0]) == [
        "name", "kind", "region", "query_tokens", "key_tokens", "heads", "groups",
    ]  # fmt: skip
    assert list(found["regions"][0]) == ["name", "kind", "parent", "flops", "slot_bytes"]
    assert list(found["plan"]) == [
        "name", "steps", "variants", "flops_by_step", "cache_peak_bytes",
    ]  # fmt: skip
    assert found["geometry"] == {"batch": 2, "views": 3, "frames": 2, "height": 8, "width": 8}
    assert found["model"] == "MultiViewNet"


def test_kinds_add_up_to_the_call() -> None:
    found = small().to_json()
    assert sum(found["flops_by_kind"].values()) == found["flops_per_call"]
    assert set(found["flops_by_kind"]) == {"spatial", "camera", "motion", "cross", "other"}


def test_a_step_costs_what_it_does_not_skip() -> None:
    info = small()
    found = info.to_json()
    flops = {region.name: region.flops for region in info.regions}
    [rows] = info.plan.streams.values()
    assert any(rows)  # the plan skips something
    for row, cost in zip(rows, found["plan"]["flops_by_step"], strict=True):
        assert cost == info.flops_per_call - sum(flops[name] for name in row or {})


def test_only_single_keys_fold_and_only_in_exact_plans() -> None:
    model, call = build("chain", device="meta")
    assert explain(model, (), call).to_json()["folded_sites"] == 3
    assert explain(model, (), call, plan="none").to_json()["folded_sites"] == 0
    assert small().to_json()["folded_sites"] == 0


def test_the_text_shows_sites_regions_and_the_plan() -> None:
    text = str(small())
    for part in ("MultiViewNet", "stack.0.camera", "stack.0.chain", "plan 'fast'", "# compute"):
        assert part in text


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
