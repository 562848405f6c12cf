import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from turbo4d.runtime.levels import LevelUnit
from turbo4d.runtime.plan_source import Schedule
from turbo4d.runtime.run_watch import RunWatch

LEVELS = [80.0, 20.0, 4.0, 1.0, 0.1]
NEVER = [None] * len(LEVELS)
ALL = [*range(len(LEVELS))]


def steps(watch, levels):
    return [watch.see(level).step for level in levels]


def reasons(watch, levels):
    return [sighting.lost[0] for sighting in map(watch.see, levels) if sighting.lost]


def fixed(levels=LEVELS, unit: LevelUnit = "sigma"):
    return RunWatch(Schedule.of(levels, unit), None)


def test_the_first_run_is_learnt_and_the_next_are_told():
    watch = RunWatch(None, None)
    assert steps(watch, LEVELS) == NEVER
    assert watch.schedule is None
    assert steps(watch, LEVELS * 2) == ALL * 2
    assert watch.schedule == Schedule(tuple(LEVELS), "sigma")


def test_each_run_begins_once():
    watch = RunWatch(None, None)
    begins = [watch.see(level).begins for level in LEVELS * 3]
    assert begins == [True, False, False, False, False] * 3


def test_known_levels_need_no_learning():
    assert steps(fixed(), LEVELS * 2) == ALL * 2


@pytest.mark.parametrize("fed", ["sigma", "c_noise"])
@pytest.mark.parametrize("known", ["sigma", "c_noise"])
def test_the_model_may_be_fed_another_unit(fed, known: LevelUnit):
    in_unit = {"sigma": LEVELS, "c_noise": [math.log(level) / 4 for level in LEVELS]}
    assert steps(fixed(in_unit[known], known), in_unit[fed] * 2) == ALL * 2


def test_levels_fed_in_bfloat16_are_recognised():
    import torch

    fine = [math.log(700 * 0.9**step) / 4 for step in range(60)]
    fed = torch.tensor(fine, dtype=torch.bfloat16).tolist()
    assert steps(fixed(fine, "c_noise"), fed) == [*range(60)]


def test_a_call_to_warm_up_does_not_spoil_the_learning():
    watch = RunWatch(None, None)
    assert steps(watch, [80.0, *LEVELS]) == [None, *NEVER]
    assert steps(watch, LEVELS) == ALL
    other = RunWatch(None, None)
    assert steps(other, [3.0, *LEVELS]) == [None, *NEVER]
    assert steps(other, LEVELS) == ALL


PAIRS = [level for level in LEVELS for _ in range(2)]


def test_a_level_that_repeats_is_the_same_step():
    watch = RunWatch(None, None)
    assert steps(watch, PAIRS) == NEVER * 2
    assert steps(watch, PAIRS * 2) == [step for step in ALL for _ in range(2)] * 2
    assert [watch.see(level).repeated for level in PAIRS] == [False, True] * len(LEVELS)
    assert watch.schedule == Schedule(tuple(LEVELS), "sigma")


def untold(watch, levels):
    """The sightings where no call is a guidance branch."""
    for level in levels:
        sighting = watch.see(level)
        yield watch.cannot_tell() if sighting.repeated else sighting


def test_a_level_that_repeats_otherwise_is_never_planned():
    watch = RunWatch(None, None)
    seen = [*untold(watch, PAIRS * 2)]
    assert [sighting.step for sighting in seen] == [None] * 20
    # What repeats at the first level alone may be a call to warm up; the run's end shows it.
    assert [sighting.lost[0] for sighting in seen if sighting.lost] == ["repeated-level"]
    assert watch.schedule is None
    known = [*untold(fixed(), PAIRS * 2)]
    # The first call cannot know; the second shows it, and the rest of the run is lost.
    assert [sighting.step for sighting in known] == [0, *[None] * 9] * 2
    assert [sighting.lost[0] for sighting in known if sighting.lost] == ["repeated-level"] * 2


def test_a_first_level_that_repeats_otherwise_is_a_call_to_warm_up():
    watch = RunWatch(None, None)
    begins = [sighting.begins for sighting in untold(watch, [80.0, 80.0, *LEVELS[1:]])]
    assert begins == [True, True, False, False, False, False]
    assert steps(watch, LEVELS) == ALL


def test_a_run_that_goes_on_below_the_levels_is_longer_and_learnt_anew():
    watch = RunWatch(None, None)
    steps(watch, LEVELS[:3])  # the first run was interrupted
    seen = [watch.see(level) for level in LEVELS]
    assert [sighting.step for sighting in seen] == [0, 1, 2, None, None]
    assert [sighting.begins for sighting in seen] == [True, *[False] * 4]
    assert seen[3].lost == ("unknown-level", "noise level 1 belongs to no step of the plan")
    assert steps(watch, LEVELS) == ALL


@pytest.mark.parametrize("levels", [[5.0] * 9, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
def test_levels_that_never_fall_are_said_once(levels):
    lost = [s.lost for s in untold(RunWatch(None, None), levels) if s.lost is not None]
    at = {5.0: 5, 1.0: 3}[levels[0]]
    assert lost == [
        (
            "no-schedule",
            f"3 calls in a row came without a lower noise level after them, the last at {at}; a "
            "run is told by levels that fall from call to call, so open turbo4d.session and say "
            "the steps",
        )
    ]


def test_another_schedule_is_learnt_anew():
    watch = RunWatch(None, None)
    steps(watch, LEVELS * 2)
    other = [50.0, 10.0, 2.0]
    assert reasons(watch, other) == ["unknown-level"]
    assert steps(watch, other) == [0, 1, 2]


def test_a_schedule_within_another_is_learnt_anew():
    watch = RunWatch(None, None)
    steps(watch, LEVELS)
    assert reasons(watch, LEVELS[::2]) == ["skipped-step"]
    assert steps(watch, LEVELS[::2]) == [0, 1, 2]


def test_given_levels_are_not_learnt_anew():
    watch = fixed()
    assert reasons(watch, [50.0, 10.0, 2.0] * 2) == ["unknown-level"] * 2
    assert steps(watch, LEVELS) == ALL


def test_a_run_that_is_given_up_leaves_the_next_one_alone():
    watch = RunWatch(None, None)
    steps(watch, LEVELS)
    assert steps(watch, [*LEVELS[:3], *LEVELS]) == [0, 1, 2, *ALL]


def test_a_run_that_begins_in_the_middle_is_not_told():
    watch = fixed()
    assert steps(watch, LEVELS[:2]) == [0, 1]
    assert steps(watch, LEVELS[3:]) == [None, None]
    assert steps(watch, LEVELS) == ALL


def test_a_schedule_of_one_step():
    assert steps(fixed([7.0]), [7.0, 7.0]) == [0, 0]


def test_levels_that_are_no_schedule_are_not_learnt():
    watch = RunWatch(None, "sigma")
    steps(watch, [1.5, 0.5, -0.5])
    sighting = watch.see(1.5)
    assert sighting.lost == (
        "no-schedule",
        "levels: step 2 has -0.5, which is no sigma that a model is fed",
    )
    assert watch.schedule is None
    assert steps(watch, [0.5, -0.5]) == [None, None]


@given(st.lists(st.sampled_from([*LEVELS, 50.0, 2.0, -1.0]), max_size=40))
def test_whatever_comes_a_told_step_follows_its_forerunner_at_its_level(levels):
    """The promise that slots rest on: step n is told only right after step n - 1 of the run."""
    watch = RunWatch(None, "sigma")
    last = None
    for level in levels:
        sighting = watch.see(level)
        if sighting.repeated:
            assert sighting.step == (None if last == math.inf else last)
            continue
        if sighting.begins:
            last = None
        if sighting.step is not None:
            assert sighting.step == (0 if last is None else last + 1)
            assert watch.schedule is not None
            assert math.isclose(watch.schedule.levels[sighting.step], level, rel_tol=0.02)
        last = sighting.step if sighting.step is not None else math.inf


OTHER = [90.0, 30.0, 5.0, 0.5]  # begins elsewhere
FINER = [80.0, 40.0, 20.0, 4.0, 1.0, 0.1]  # begins as LEVELS does


def test_schedules_that_were_learnt_are_known_when_they_come_back():
    watch = RunWatch(None, None)
    for levels in (LEVELS, OTHER, FINER):
        steps(watch, levels)
    assert steps(watch, FINER) == [*range(6)]
    assert steps(watch, LEVELS) == ALL
    assert steps(watch, OTHER) == [*range(4)]
    assert steps(watch, FINER + OTHER + LEVELS) == [*range(6), *range(4), *ALL]
    assert reasons(watch, [*LEVELS[:2], 3.0, 2.0]) == ["unknown-level"]
    assert steps(watch, LEVELS) == ALL


HEUN = [LEVELS[0], *(level for level in LEVELS[1:] for _ in range(2))]


def test_every_level_but_the_first_twice_is_a_solver_of_second_order():
    watch = RunWatch(None, None)
    assert [each.step for each in untold(watch, HEUN)] == [None] * 9
    twice = []
    for level in HEUN:
        sighting = watch.see(level)
        twice.append((sighting.step, sighting.repeated and watch.twice))
    assert twice == [(0, False), *((at, again) for at in ALL[1:] for again in (False, True))]
    # So it is where a run of the same levels was known without.
    other = RunWatch(None, None)
    assert steps(other, LEVELS * 2) == NEVER + ALL
    assert not other.twice
    assert [each.lost[0] for each in untold(other, HEUN) if each.lost] == ["repeated-level"]
    assert other.see(HEUN[0]).step == 0
    assert other.see(HEUN[1]).step == 1
    assert other.twice
