"""Adaptive runs: what is measured, what is decided, and the bounds that always hold."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from turbo4d.runtime.action import Action
from turbo4d.runtime.adaptive import Bounds, bounds_of
from turbo4d.runtime.change import relative_change
from turbo4d.runtime.errors import OptionError, PlanError
from turbo4d.runtime.expected_error import row_error
from turbo4d.runtime.plan import RegionInfo, VariantKey
from turbo4d.runtime.runner import Runner
from turbo4d.runtime.trajectory import POINTS, expected_change

from tests.runtime.fake import REUSE, make_args, plan_of, signature
from turbo4d import session

# The schedule that the expected change was measured on, so that every step has a point.
LEVELS = tuple(math.exp(place) for place, _ in POINTS["core"])
REGIONS = (
    RegionInfo("core", "core", None, residual=False, slot_bytes=8, flops=100),
    RegionInfo("level.1", "level", "core", residual=False, slot_bytes=8, flops=60),
)
ROWS = {"C": {}, "K": REUSE, "L": {"level.1": "reuse"}}
BALANCED = "CKKKKKKKKKKKCCCCLKKK"


class Scene:
    """Engines whose core value moves `pace` times as far from step to step as it is expected to.

    Values are points on a line: of two that were computed, the second lies at the expected relative
    distance, times the pace, from the first.
    """

    def __init__(self, pace: float) -> None:
        self.pace = pace
        self.step = 0
        self.last: tuple[int, float] | None = None
        self.built: list[VariantKey] = []
        self.read: list[list[float]] = []

    def __call__(self, key: VariantKey) -> Scene.Engine:
        self.built.append(key)
        return Scene.Engine(key, self)

    def value(self) -> float:
        value = 1.0
        if self.last is not None:
            before, old = self.last
            change = self.pace * expected_change(LEVELS[before], LEVELS[self.step])
            value = old / (1.0 - change)  # |value - old| / |value| is the change
        self.last = self.step, value
        return value

    class Engine:
        def __init__(self, key: VariantKey, scene: Scene) -> None:
            self.key, self.reads, self.writes, self.scene = key, key.reads, key.writes, scene

        def __call__(self, args, prologue, slots_in) -> tuple[list[Tensor], list[Tensor]]:
            self.scene.read.append([float(slot[0]) for slot in slots_in])
            core = self.scene.value() if "core" in self.writes else 0.0
            written = {"core": core, "level.1": 1.0}
            return [args[1]], [torch.full((2,), written[name]) for name in self.writes]


def carried_out(scene: Scene, plan=BALANCED, runs: int = 1, **bounds):
    """The letters of what ran, the report, for a plan in letters."""
    rows = tuple(ROWS[letter] for letter in plan)
    made = plan_of(*rows, levels=LEVELS, max_age=bounds.pop("max_age", 40), max_variants=8)
    denoiser = Runner(signature(regions=REGIONS), scene, plan=made, adaptive=Bounds(**bounds))
    letters = ""
    with session(denoiser, steps=len(LEVELS)) as run:
        for _ in range(runs):
            letters, scene.last = "", None
            for step, level in enumerate(LEVELS):
                run.step(step)
                scene.step = step
                denoiser(*make_args(level))
        report = run.report()
    letters = "".join(letter_of(each["variant"]) for each in report["decisions"])
    return letters, report


def letter_of(variant: str) -> str:
    return {"compute": "C", "core": "K", "level": "L"}[variant.replace("+", ".").split(".")[0]]


def test_a_typical_scene_gets_the_plan():
    letters, report = carried_out(Scene(1.0))
    assert letters == BALANCED
    assert {each["reason"] for each in report["decisions"]} == {"as planned"}
    assert [each["scene"] for each in report["decisions"]] == [1.0] * 20
    assert report["events"] == []


def test_a_quiet_scene_reuses_more_and_a_lively_one_less():
    quiet, quiet_report = carried_out(Scene(0.6), hysteresis=0.0)
    lively, lively_report = carried_out(Scene(1.15), hysteresis=0.0)
    cost = {"C": 100, "L": 40, "K": 0}
    spent = {name: sum(cost[letter] for letter in name) for name in (quiet, BALANCED, lively)}
    assert spent[quiet] < spent[BALANCED] < spent[lively]
    # The first slot is measured where it is first computed anew: until then nothing is known.
    assert quiet[:13] == lively[:13] == BALANCED[:13]
    more = [each for each in quiet_report["decisions"] if each["reason"] != "as planned"]
    assert all(each["scene"] == pytest.approx(0.6**3, rel=0.02) or each["scene"] == 0.5
               for each in more)  # fmt: skip
    assert more[0]["reason"].startswith("skips more than planned: the scene errs 0.50 times")
    fewer = [each for each in lively_report["decisions"] if each["reason"] != "as planned"]
    assert fewer[0]["reason"].startswith("skips less than planned: the scene errs 1.5")


def test_without_power_every_scene_is_a_typical_one():
    for pace in (0.6, 1.0, 1.2):
        letters, report = carried_out(Scene(pace), power=0.0)
        assert letters == BALANCED
        assert {each["scene"] for each in report["decisions"]} == {1.0}


def test_no_engine_is_built_that_no_step_may_run():
    scene = Scene(1.0)
    _, report = carried_out(scene)
    assert len(scene.built) == report["variants"] == len(ROWS)


def test_rows_that_differ_in_an_order_alone_stay_two():
    rows = [{}, {}, {"core": "reuse"}, {"core": "reuse(1)"}, *[{}] * 16]
    plan = plan_of(*rows, levels=LEVELS, max_age=40, max_variants=8)
    read: list[list[list[float]]] = []
    for adaptive in (None, Bounds(power=0.0)):
        scene = Scene(1.0)
        denoiser = Runner(signature(regions=REGIONS), scene, plan=plan, adaptive=adaptive)
        with session(denoiser, steps=len(LEVELS)) as run:
            for step, level in enumerate(LEVELS):
                run.step(step)
                scene.step = step
                denoiser(*make_args(level))
        read.append(scene.read)
    assert read[0] == read[1]
    assert read[0][2] != read[0][3]


def test_what_is_measured_does_not_outlive_its_run():
    once, _ = carried_out(Scene(0.6))
    twice, _ = carried_out(Scene(0.6), runs=2)
    assert twice == once * 2


@pytest.mark.parametrize("every", [1, 2, 5])
def test_everything_is_computed_as_often_as_asked(every):
    letters, _ = carried_out(Scene(0.1), min_refresh=every)
    assert max(len(run) for run in letters.split("C")) < every


def test_no_slot_is_older_than_the_plan_allows():
    letters, _ = carried_out(Scene(0.1), plan="CKKKCKKKCKKKCKKKCKKK", max_age=3)
    assert "KKKK" not in letters


def test_the_expected_error_of_a_run_stays_below_the_ceiling():
    regions = {region.name: region for region in REGIONS}

    def planned() -> float:
        written: dict[str, int] = {}
        total = 0.0
        for step, letter in enumerate(BALANCED):
            row = {name: Action.parse(text) for name, text in ROWS[letter].items()}
            total += row_error(row, written, step, LEVELS, regions)
            computed = {"C": regions, "L": ("core",), "K": ()}[letter]
            written.update(dict.fromkeys(computed, step))
        return total

    for pace in (0.8, 1.0, 1.2):
        letters, report = carried_out(Scene(pace), ceiling=0.8)
        # What was spent before the scene could be measured was as of a typical one.
        typical = sum(each["error"] / each["scene"] for each in report["decisions"])
        assert typical * report["decisions"][-1]["scene"] <= 0.8 * planned() * 1.001
        assert letters != BALANCED


def test_a_reading_that_is_no_number_is_not_believed():
    class Broken(Scene):
        def value(self) -> float:
            return math.nan

    letters, _ = carried_out(Broken(1.0))
    assert letters == BALANCED


def test_a_plan_without_a_slot_of_the_core_says_that_nothing_can_be_measured():
    letters, report = carried_out(Scene(1.0), plan="CLCLCLCLCLCLCLCLCLCL")
    assert letters == "CLCLCLCLCLCLCLCLCLCL"
    assert [event["kind"] for event in report["events"]] == ["adaptive-blind"]


def test_more_variants_or_bytes_than_the_plan_allows():
    # One slot at a time, as the plan has it; an adaptive run may want either at any step.
    rows = tuple(ROWS[letter] for letter in "CKKKKKKKKKKKCCCCCCCL")
    plan = plan_of(*rows, levels=LEVELS, max_age=40, max_variants=8, max_cache_bytes=15)
    denoiser = Runner(signature(regions=REGIONS), Scene(1.0), plan=plan, adaptive=Bounds())
    with session(denoiser, steps=20) as run:
        run.step(0)
        with pytest.raises(PlanError, match="adaptive run holds every slot all the time, 16 bytes"):
            denoiser(*make_args(LEVELS[0]))


def test_a_session_may_say_otherwise():
    rows = tuple(ROWS[letter] for letter in BALANCED)
    plan = plan_of(*rows, levels=LEVELS, max_age=40, max_variants=8)
    denoiser = Runner(signature(regions=REGIONS), Scene(1.0), plan=plan)
    for adaptive, decisions in ((None, 0), (True, 1), ({"ceiling": 2}, 1), (False, 0)):
        with session(denoiser, steps=20, adaptive=adaptive) as run:
            run.step(0)
            denoiser(*make_args(LEVELS[0]))
            assert len(run.report()["decisions"]) == decisions


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"cieling": 1}, "adaptive: 'cieling' is unknown; choose from ceiling, hysteresis, "
            "min_refresh, power."),
        ({"ceiling": 0}, "adaptive: ceiling is 0; wanted more than 0."),
        ({"ceiling": True}, "adaptive: ceiling is True; wanted a number."),
        ({"min_refresh": 0}, "adaptive: min_refresh is 0; wanted at least 1."),
        ({"min_refresh": 2.5}, "adaptive: min_refresh is 2.5; wanted a whole number."),
        ({"power": -1}, "adaptive: power is -1; wanted 0 or more."),
        ({"hysteresis": 1.0}, "adaptive: hysteresis is 1.0; wanted 0 to 1."),
    ],
)  # fmt: skip
def test_bad_bounds(given, sentence):
    with pytest.raises(OptionError) as caught:
        bounds_of(given)
    assert str(caught.value) == sentence


def test_the_change_of_a_large_slot_is_sampled_well():
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(2**21 + 3, generator=generator)
    now = before + 0.1 * torch.randn(before.shape, generator=generator)
    whole = float((now - before).norm() / now.norm())
    assert relative_change(now, before).value() == pytest.approx(whole, rel=0.01)
    few = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 0.0])
    assert relative_change(*few).value() == 1.0


def test_the_expected_change_is_a_distance():
    at = LEVELS[12], LEVELS[15]
    assert expected_change(at[0], at[0]) == 0.0
    assert expected_change(*at) > expected_change(LEVELS[12], LEVELS[13]) > 0
    # Beyond the levels it was measured at, nothing is known to change.
    assert expected_change(LEVELS[0] * 10, LEVELS[0]) == 0.0
    assert expected_change(LEVELS[-1], LEVELS[-1] / 10) == 0.0
