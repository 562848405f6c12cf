"""Shipped plans: when a preset's name means one, and when the policy stands in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from turbo4d.runtime import shipped_plans
from turbo4d.runtime.errors import OptionError, PlanError
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.policy import ANALYTIC, NOTHING_REUSED
from turbo4d.runtime.shipped_plans import FOLDER, preset_plan

from tests.runtime.fake import GEOMETRY, REGIONS, SIGMAS, plan_of

LEVELS = SIGMAS[:3]
ASKED = {
    "levels": LEVELS,
    "level_unit": "sigma",
    "model": "abc",
    "geometry": GEOMETRY,
    "regions": REGIONS,
}


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    plan = plan_of({}, {"core": "reuse"}, {"core": "reuse"}, name="fast", origin="calibrated: here")
    plan.save(tmp_path / "nano-20-fast.json")
    own = shipped_plans.shipped_plans(tmp_path)
    monkeypatch.setattr(shipped_plans, "shipped_plans", lambda: own)
    return plan


def test_a_preset_means_the_shipped_plan_where_it_fits(shipped: Plan) -> None:
    assert preset_plan("fast", **ASKED) == shipped
    nearly = [level * (1 + 1e-5) for level in LEVELS]
    assert preset_plan("fast", **{**ASKED, "levels": [*nearly, 0.0]}) == shipped
    assert preset_plan("fast", **ASKED, streams={"main": [0, 1, 2]}) == shipped


@pytest.mark.parametrize(
    "other",
    [
        {"levels": [700.0, 500.0]},
        {"levels": [700.0, 500.0, 200.0]},
        {"model": "abcd"},
        {"geometry": replace(GEOMETRY, views=GEOMETRY.views + 1)},
        {"streams": ("uncond",)},
        {"streams": {"main": [0, 2]}},
        {"use": ("core",)},
        {"max_cache_bytes": 0},
    ],
)
@pytest.mark.usefixtures("shipped")
def test_elsewhere_the_policy_stands_in_and_says_so(other: dict[str, object]) -> None:
    assert preset_plan("fast", **{**ASKED, **other}).origin == ANALYTIC


def test_a_plan_fitted_to_other_weights_is_not_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"name": "fast", "origin": "calibrated: here", "weights_sha256": "ours"}
    plan = plan_of({}, {"core": "reuse"}, {"core": "reuse"}, **made)
    plan.save(tmp_path / "nano-20-fast.json")
    own = shipped_plans.shipped_plans(tmp_path)
    monkeypatch.setattr(shipped_plans, "shipped_plans", lambda: own)
    assert preset_plan("fast", **ASKED, digest=lambda: "ours") == plan
    assert preset_plan("fast", **ASKED, digest=lambda: "others").origin == ANALYTIC
    assert preset_plan("fast", **ASKED) == plan


@pytest.mark.usefixtures("shipped")
def test_other_presets_are_policies_and_unknown_ones_refused() -> None:
    assert preset_plan("balanced", **ASKED).origin == ANALYTIC
    assert preset_plan("exact", **ASKED).origin == NOTHING_REUSED
    with pytest.raises(OptionError, match=r"^preset 'faster' is unknown; "):
        preset_plan("faster", **ASKED)
    with pytest.raises(PlanError, match="noise levels must fall"):
        preset_plan("fast", **{**ASKED, "levels": [1.0, 2.0, 3.0]})


def test_a_bound_that_the_shipped_plan_keeps_goes_with_it(shipped: Plan) -> None:
    peak = shipped.check(REGIONS).peak_bytes
    assert preset_plan("fast", **ASKED, max_cache_bytes=peak).max_cache_bytes == peak
    assert preset_plan("fast", **ASKED, max_cache_bytes=peak).streams == shipped.streams


def test_every_file_that_comes_with_turbo4d_says_how_it_was_found() -> None:
    for path in FOLDER.glob("*.json"):
        plan = Plan.load(path)
        assert plan.origin.startswith("calibrated: ")
        assert path.stem == f"nano-{plan.steps}-{plan.name}"
        assert len(plan.weights_sha256) == 64


def test_runs_that_may_leave_their_plan_get_none_with_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ({}, {}, {"core": "reuse(mix=0.5,0.5)"})
    plan = plan_of(*rows, name="fast", origin="calibrated: here")
    plan.save(tmp_path / "nano-20-fast.json")
    own = shipped_plans.shipped_plans(tmp_path)
    monkeypatch.setattr(shipped_plans, "shipped_plans", lambda: own)
    assert preset_plan("fast", **ASKED) == plan
    assert preset_plan("fast", **ASKED, weights=False).origin == ANALYTIC
