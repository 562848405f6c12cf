import re
from dataclasses import replace

import pytest
from turbo4d.runtime.errors import OptionError, PlanError
from turbo4d.runtime.plan_source import PlanSource, Schedule, read_plan

from tests.runtime.fake import GEOMETRY, SIGMAS, plan_of, signature

PLAN = plan_of({}, {"core": "reuse"})


def test_a_plan_is_a_name_a_file_or_itself(tmp_path):
    PLAN.save(tmp_path / "plan.json")
    assert read_plan("fast") == "fast"
    assert read_plan(PLAN) is PLAN
    assert read_plan(tmp_path / "plan.json") == PLAN
    assert read_plan(str(tmp_path / "plan.json")) == PLAN


def test_any_other_text_is_refused():
    text = "plan: 'fats' is no preset (balanced, exact, fast, none, quality) and no file."
    with pytest.raises(OptionError, match=f"^{re.escape(text)}$"):
        read_plan("fats")


@pytest.mark.parametrize(
    ("plan", "schedule", "text"),
    [
        (
            replace(PLAN, model="xyz"),
            None,
            "plan 'p' is for model 'xyz'; this one is 'abc'. Make a plan for this model.",
        ),
        (
            replace(PLAN, geometry=replace(GEOMETRY, views=8)),
            None,
            "plan 'p' is for geometry batch 2, views 8, frames 3, height 8, width 8; this call has "
            "batch 2, views 4, frames 3, height 8, width 8. Make a plan for this geometry.",
        ),
        (
            PLAN,
            SIGMAS,
            "plan 'p' is for 2 steps; this run has 8. Make a plan for this schedule.",
        ),
        (
            PLAN,
            (700.0, 499.0),
            "plan 'p' is for sigma 500 at step 1; this run has sigma 499. "
            "Make a plan for this schedule.",
        ),
    ],
)
def test_a_plan_for_something_else_is_refused(plan, schedule, text):
    known = None if schedule is None else Schedule.of(schedule, "sigma")
    with pytest.raises(PlanError) as caught:
        PlanSource(plan, signature(), known).open("main")
    assert str(caught.value) == text


def test_levels_in_another_unit_or_precision_are_the_same_schedule():
    c_noise = [1.63777, 1.55365]  # ln(700) / 4, ln(500) / 4 in float16 or so
    PlanSource(PLAN, signature(), Schedule.of(c_noise, "c_noise")).open("main")


def test_the_smaller_of_two_bounds_holds():
    PlanSource(PLAN, signature(), max_cache_bytes=24).open("main")
    with pytest.raises(PlanError, match=r"hold up to 24 bytes; max_cache_bytes allows 23"):
        PlanSource(PLAN, signature(), max_cache_bytes=23).open("main")
    with pytest.raises(PlanError, match="allows 22"):
        PlanSource(replace(PLAN, max_cache_bytes=22), signature(), max_cache_bytes=23).open("main")


def test_a_preset_without_levels_is_refused():
    text = (
        "plan 'fast': a preset follows the noise levels and none are known; "
        "give levels=[...], one per step."
    )
    with pytest.raises(PlanError, match=f"^{re.escape(text)}$"):
        PlanSource("fast", signature()).open("main")


def test_a_preset_plans_each_stream_that_turns_up():
    source = PlanSource("fast", signature(), Schedule.of(SIGMAS, None))
    assert [*source.open("uncond")[0].streams] == ["uncond"]
    assert [*source.open("cond")[0].streams] == ["uncond", "cond"]


def test_levels_that_are_a_plans_are_in_its_unit():
    """Few sigmas look like timesteps, and a plan for timesteps may have been made for a flow's."""
    sigmas = plan_of({}, {}, {})
    assert Schedule.of([*SIGMAS[:3], 0.0], None, 3, sigmas).unit == "sigma"
    assert Schedule.of(SIGMAS[:3], None, None, sigmas).unit == "sigma"
    assert Schedule.of(SIGMAS[:3], None).unit == "timestep"
    assert Schedule.of(SIGMAS[:3], "timestep", None, sigmas).unit == "timestep"
    assert Schedule.of(SIGMAS[:2], None, None, sigmas).unit == "timestep"
