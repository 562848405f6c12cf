"""calibrate: from a tiny network to a plan and its report; stopped anywhere, it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from turbo4d.compiler.calibrate import calibrate as module
from turbo4d.compiler.calibrate import places, timed
from turbo4d.compiler.calibrate.calibrate import Calibration, calibrate
from turbo4d.compiler.errors import CalibrationError
from turbo4d.compiler.machine import Machine
from turbo4d.runtime.plan import Plan

import turbo4d
from tests.compiler.calibrate import tiny

# Products alone take time, so that a plan's time does not depend on this machine.
MACHINE = Machine("made up", matmul_flops=1e9, bandwidth=1e15, launch_s=0.0)
GRID = (20.0, 30.0, 40.0, 50.0, 60.0)
MOVES = ("core", "chains")
TARGET_DB = 40.0


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One harness for all calibrations: to capture a network takes longer than the rest."""
    harness, _ = tiny.learned()
    monkeypatch.setattr(harness, "learn", lambda example: None)
    monkeypatch.setattr(module, "Harness", lambda *args, **kwargs: harness)
    monkeypatch.setattr(places, "GRID_DB", GRID)
    monkeypatch.setattr(timed, "RUNS", 1)


@cache
def scenes() -> tuple[nn.Module, list[tiny.Example]]:
    return tiny.network(), [tiny.learned()[1], tiny.example(1), tiny.example(2)]


def run(
    state: Path | None = None, progress: Callable[[str], None] | None = None, **options: Any
) -> Calibration:
    model, (*examples, held_out) = scenes()
    call = {
        "min_psnr_db": TARGET_DB,
        "held_out": [held_out],
        "machine": MACHINE,
        "use": MOVES,
        **options,
    }
    return calibrate(model, tiny.sampler, examples, state=state, progress=progress, **call)


@cache
def made() -> tuple[Calibration, tuple[str, ...]]:
    lines: list[str] = []
    return run(progress=lines.append), tuple(lines)


def test_the_plan_measures_the_target_and_says_so() -> None:
    found, _ = made()
    report = found.report
    assert report["calibration"]["mean_db"] >= TARGET_DB
    assert report["calibration"]["worst_db"] >= TARGET_DB - 2
    assert report["calibration"]["scenes"] == ["example 0", "example 1"]
    apart = report["held_out"]
    assert found.plan.origin == (
        f"calibrated: turbo4d.calibrate; {apart['mean_db']:.1f} dB mean, "
        f"{apart['worst_db']:.1f} dB worst on 1 held-out scenes"
    )
    assert found.plan.error_budget_db == TARGET_DB
    _, (*_, held_out) = scenes()
    assert found.harness.psnr(held_out, found.plan) == pytest.approx(apart["psnr_db"][0], abs=1e-6)


def test_the_report_is_json_and_holds_what_the_page_draws() -> None:
    found, _ = made()
    report = json.loads(json.dumps(found.report, allow_nan=False))
    assert Plan.from_json(json.dumps(report["plan"])) == found.plan
    steps = len(tiny.LEVELS)
    assert report["letters"].keys() == {"main"}
    assert len(report["letters"]["main"]) == steps
    assert len(report["frontier"]) == len(GRID) + 1
    rising = [place["predicted_seconds"] for place in report["frontier"]]
    assert rising == sorted(rising)
    assert report["frontier"][-1]["budget_db"] is None
    assert len(report["drift"]["matrix"]["core"]) == steps
    assert report["drift"]["curves"]["core"][1:] == [
        report["drift"]["matrix"]["core"][at - 1][at] for at in range(1, steps)
    ]
    assert set(report["gains"]) >= {*MOVES}
    assert sum(report["predicted"]["seconds_by_step"]) == pytest.approx(
        report["predicted"]["seconds"], rel=0.5
    )
    assert report["memory"]["bound"] is None
    assert report["measured"]["cache_peak_bytes"] <= report["predicted"]["cache_peak_bytes"]
    assert report["measured"]["speedup"] == pytest.approx(
        report["measured"]["uncached_seconds"] / report["measured"]["seconds"]
    )


def test_progress_has_percent_that_rise() -> None:
    _, lines = made()
    percents = [int(line.split("%")[0]) for line in lines]
    assert percents == sorted(percents)
    assert percents[0] == 0
    assert percents[-1] >= 75
    assert any("left" in line for line in lines)


def test_stopped_at_any_stage_it_goes_on_to_the_same_plan(tmp_path: Path) -> None:
    whole, _ = made()
    state, seen = tmp_path / "state.json", []
    # A line of each stage: what was found before it must not be sought again.
    stops = ["changes of example 1", "core at step 2", "plan for 40 dB", "running", "held-out"]
    for stop in stops:

        def interrupt(line: str, stop: str = stop) -> None:
            seen.append(line)
            if stop in line:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(state, interrupt)
        assert [each.name for each in tmp_path.iterdir()] == ["state.json"]
    after = run(state, seen.append)
    assert after.plan == whole.plan
    assert after.report["frontier"] == whole.report["frontier"]


def test_a_bound_of_bytes_is_kept(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    free = run(state)
    peak = free.report["measured"]["cache_peak_bytes"]
    assert peak > 0
    bound = run(state, max_cache_bytes=peak // 3)
    assert bound.plan.max_cache_bytes == peak // 3
    assert bound.report["measured"]["cache_peak_bytes"] <= peak // 3
    assert (
        bound.report["frontier"][0]["predicted_seconds"]
        >= (free.report["frontier"][0]["predicted_seconds"])
    )


def test_a_target_out_of_reach_names_the_best() -> None:
    with pytest.raises(
        CalibrationError,
        match=r"^calibrate: no plan reaches 201 dB on these examples; the best that was run has "
        r"\d+\.\d\d dB in the mean and \d+\.\d\d dB at worst. Ask for at most \d+\.\d dB\.$",
    ):
        run(min_psnr_db=201)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"min_psnr_db": float("nan")}, "min_psnr_db is nan; wanted a number of dB above 0."),
        ({"min_psnr_db": 0.0}, "min_psnr_db is 0.0; wanted a number of dB above 0."),
        ({"max_variants": 0}, "max_variants is 0; wanted at least 1, the graph that computes"),
        ({"max_cache_bytes": -1}, "max_cache_bytes is -1; wanted at least 0, or None for no"),
        ({"worst_slack_db": -1.0}, "worst_slack_db is -1.0; wanted a number of dB from 0."),
        ({"use": ("cores",)}, "move 'cores' is unknown to this model; it has "),
    ],
)
def test_a_wrong_call_is_one_sentence(options: dict[str, Any], says: str) -> None:
    with pytest.raises(CalibrationError, match=says):
        run(**options)


def test_no_examples_and_examples_on_both_sides_are_refused() -> None:
    model, _ = scenes()
    with pytest.raises(CalibrationError, match="there are no examples"):
        calibrate(model, tiny.sampler, [], 30.0)
    one, same = tiny.example(0), tiny.example(0)
    with pytest.raises(CalibrationError, match="held-out 'example 0' equals 'example 0'"):
        calibrate(model, tiny.sampler, [one], 30.0, held_out=[same])


def test_the_front_door_gives_the_plan_and_writes_the_report(tmp_path: Path) -> None:
    model, (*examples, _) = scenes()
    plan = turbo4d.calibrate(
        model,
        tiny.sampler,
        examples,
        TARGET_DB,
        machine=MACHINE,
        use=MOVES,
        report=tmp_path / "report.json",
    )
    assert isinstance(plan, Plan)
    assert plan.streams == made()[0].plan.streams
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["held_out"] is None
    assert "on 2 calibration scenes" in plan.origin
