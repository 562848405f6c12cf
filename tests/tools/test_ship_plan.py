"""ship_plan: what becomes a preset, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from turbo4d.compiler.explain import edm_levels
from turbo4d.runtime.action import Action
from turbo4d.runtime.errors import PlanError
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.policy import resolve
from turbo4d.tools.ship_plan import analysis_of, main, ship

ORIGIN = "calibrated: turbo4d calibrate --model tiny; 31.0 dB mean on 2 held-out scenes"


@cache
def found() -> Plan:
    analysis = analysis_of("tiny")
    plan = resolve(
        "fast",
        levels=edm_levels(6),
        model=analysis.capture.fingerprint,
        geometry=analysis.geometry,
        regions=[region.info for region in analysis.regions],
    )
    return replace(plan, name="mine", origin=ORIGIN)


def test_a_calibrated_plan_becomes_the_preset(tmp_path: Path) -> None:
    found().save(tmp_path / "plan.json")
    path = ship(tmp_path / "plan.json", "balanced", "tiny", tmp_path)
    assert path.name == "tiny-6-balanced.json"
    assert Plan.load(path) == replace(found(), name="balanced")


def test_what_no_calibration_made_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(found(), origin="by hand").save(tmp_path / "plan.json")
    assert main([str(tmp_path / "plan.json"), "--preset", "fast", "--model", "tiny"]) == 1
    assert capsys.readouterr().err == (
        "ship_plan: plan 'mine': its origin is 'by hand'; wanted one that begins with "
        "'calibrated: '. Ship a plan that turbo4d calibrate wrote.\n"
    )
    replace(found(), model="another").save(tmp_path / "plan.json")
    with pytest.raises(PlanError, match=r"^plan 'mine' is for model 'another'; tiny is '"):
        ship(tmp_path / "plan.json", "fast", "tiny", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_fitted_weights_of_nobody_knows_which_network_are_refused(tmp_path: Path) -> None:
    plan = found()
    reused = {"step": Action.parse("reuse(mix=1.0;sample=0.1)")}
    fitted = replace(plan, streams={"main": ({}, {}, {}, reused, {}, {})})
    fitted.save(tmp_path / "plan.json")
    with pytest.raises(PlanError, match=r"^plan 'mine': it reuses by fitted weights and does not"):
        ship(tmp_path / "plan.json", "fast", "tiny", tmp_path)
    replace(fitted, weights_sha256="ab" * 32).save(tmp_path / "plan.json")
    assert ship(tmp_path / "plan.json", "fast", "tiny", tmp_path).is_file()
