"""Telling from the noise levels that a model is fed which step of which run each call is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .errors import PlanError
from .levels import UNITS, LevelUnit, check_levels, to_sigma
from .plan_source import Schedule

# bfloat16 holds ln(sigma) / 4 so badly that sigma is off by up to 1.3 %.
_SAME_LEVEL = 0.02
_MOST = 8  # of the schedules that are learnt
_NO_RUN = 3  # calls that each begin a run of their own: no loop is like that
LostKind = Literal["repeated-level", "unknown-level", "skipped-step", "no-schedule"]


@dataclass(frozen=True)
class Sighting:
    """What one call turned out to be.

    Args:
        step: of the schedule, None where it cannot be told.
        begins: whether the call is the first of a run.
        lost: at the call that puts a run out of reach, why.
        repeated: whether the call before it had the same level; the step is then that call's, if
            it is a guidance branch, and `cannot_tell` is what it is if it is none.
    """

    step: int | None
    begins: bool
    lost: tuple[LostKind, str] | None = None
    repeated: bool = False


class RunWatch:
    """Watches the levels go by. A run ends where one rises, or comes again after the last.

    Once a step of a run cannot be told, none after it can, up to the next run. `schedule` is the
    one that the run follows so far: another that was learnt may take its place at any step.

    Args:
        schedule: the levels of every run, where they are known; else they are learnt from the
            first complete run, and again from one that follows no schedule learnt so far.
        unit: of the levels to learn, None to infer it.
    """

    def __init__(self, schedule: Schedule | None, unit: LevelUnit | None) -> None:
        self.schedule = schedule
        self._learns = schedule is None
        self._unit: LevelUnit | None = unit
        self._fed_unit: LevelUnit | None = None
        self._seen: list[float] = []  # the levels of this run, each once
        self._last: int | None = None
        self._lost: LostKind | None = None
        self._learnt: list[Schedule] = []
        self._twice: set[Schedule] = set()  # those of solvers of second order
        self._untold: list[int] = []  # per level of this run, the calls that were no branch
        self._alone = 0  # how many calls in a row had no level below them

    def see(self, level: float) -> Sighting:
        """Takes note of one call.

        Args:
            level: that the model is fed, in its own unit.
        """
        if self._repeats(level):
            return Sighting(self._last if self._lost is None else None, False, repeated=True)
        unlearnt = None
        if begins := self._begins(level):
            unlearnt = self._learn()
            self._start()
        else:
            self._alone = 0
        self._seen.append(level)
        self._untold.append(0)
        if self.schedule is None or self._lost is not None:
            return Sighting(None, begins, unlearnt)
        return self._tell(level, begins, self.schedule)

    def cannot_tell(self) -> Sighting:
        """Takes note that the call seen last, which repeated a level, is no guidance branch."""
        self._untold[-1] += 1
        if self._lost is not None:
            return Sighting(None, False)
        if self.schedule is not None:
            return self._lose(*self._repeat(self._seen[-1]))
        # A call to warm up stands before the run that it seems to belong to.
        begins = len(self._seen) == 1
        return Sighting(None, begins, self._no_run() if begins else None)

    @property
    def twice(self) -> bool:
        """Whether the call seen last may be of its level's second sample, as in Heun's method."""
        return self.schedule in self._twice and self._lost is None and self._last != 0

    def forget(self) -> None:
        """Starts over after a call without a level: the next call begins a run."""
        self._start()

    def _start(self) -> None:
        self._seen, self._untold, self._last, self._lost = [], [], None, None

    def _repeats(self, level: float) -> bool:
        if not self._seen or level != self._seen[-1]:
            return False
        # Runs of one step each are alike.
        return self.schedule is None or len(self.schedule.levels) > 1

    def _begins(self, level: float) -> bool:
        if not self._seen or level > self._seen[-1]:
            return True
        complete = self.schedule is not None and self._last == len(self.schedule.levels) - 1
        return complete and level == self._seen[-1]

    def _learn(self) -> tuple[LostKind, str] | None:
        """Learns the levels of the run that is over, or tells why they are no schedule."""
        follows = self.schedule is not None and self._lost is None
        if not self._learns or follows or not self._seen:
            return None
        if len(self._seen) == 1:
            return self._no_run()
        # At the first level there may have been calls to warm up; else a run that repeats levels
        # shows no schedule.
        second_order = _of_second_order(self._untold)
        if any(self._untold[1:]) and not second_order:
            at = next(at for at, count in enumerate(self._untold) if at and count)
            return None if self._lost == "repeated-level" else self._repeat(self._seen[at])
        schedule = Schedule.of(self._seen, self._unit)
        try:
            check_levels(schedule.levels, schedule.unit)
        except PlanError as error:
            return "no-schedule", str(error).rstrip(".")
        others = [each for each in self._learnt if each != schedule]
        self._learnt = [schedule, *others][:_MOST]
        if second_order:
            self._twice.add(schedule)
        self._follow(schedule)
        return None

    def _follow(self, schedule: Schedule) -> None:
        self.schedule, self._fed_unit = schedule, schedule.unit

    def _repeat(self, level: float) -> tuple[LostKind, str]:
        return "repeated-level", (
            f"noise level {level:g} came twice in a row and not as two guidance branches, which "
            "have one sample and differ in conditioning; open turbo4d.session and name a stream "
            "for each"
        )

    def _no_run(self) -> tuple[LostKind, str] | None:
        """One call is no run; where none ever is, that is said once."""
        self._alone += 1
        if self._alone != _NO_RUN:
            return None
        return "no-schedule", (
            f"{_NO_RUN} calls in a row came without a lower noise level after them, the last at "
            f"{self._seen[-1]:g}; a run is told by levels that fall from call to call, so open "
            "turbo4d.session and say the steps"
        )

    def _tell(self, level: float, begins: bool, schedule: Schedule) -> Sighting:
        step = self._match(level, schedule)
        wanted = 0 if self._last is None else self._last + 1
        if step != wanted and (other := self._other()) is not None:
            self._follow(other)
            step = wanted
        if step is None:
            return self._lose(
                "unknown-level",
                f"noise level {level:g} belongs to no step of the plan",
                begins,
            )
        if step != wanted:
            return self._lose(
                "skipped-step", f"step {step} came where step {wanted} was due", begins
            )
        self._last = step
        return Sighting(step, begins)

    def _other(self) -> Schedule | None:
        """A schedule learnt before that begins as this run did, the newest first."""
        seen = tuple(self._seen)
        return next((each for each in self._learnt if each.levels[: len(seen)] == seen), None)

    def _lose(self, kind: LostKind, message: str, begins: bool = False) -> Sighting:
        self._lost = kind
        return Sighting(None, begins, (kind, message))

    def _match(self, level: float, schedule: Schedule) -> int | None:
        """The nearest step. Levels from an option may be in another unit than the model's own."""
        sigmas = [to_sigma(each, schedule.unit) for each in schedule.levels]
        if self._fed_unit is not None:
            return _nearest(level, self._fed_unit, sigmas)
        # The sort is stable and puts the schedule's own unit first.
        for unit in sorted(UNITS, key=lambda unit: unit != schedule.unit):
            if _nearest(level, unit, sigmas) == 0:
                self._fed_unit = unit
                return 0
        return None


def _of_second_order(untold: list[int]) -> bool:
    """Whether every level but the first was fed a second sample, which no windows of frames do."""
    return len(untold) > 2 and untold[0] == 0 < min(untold[1:]) == max(untold[1:])


def _nearest(level: float, unit: LevelUnit, sigmas: list[float]) -> int | None:
    """The step whose sigma is nearest, None where it is not near."""
    possible = {
        "sigma": 0 < level < math.inf,
        "log_sigma": abs(level) < 100,
        "c_noise": abs(level) < 100,
        "timestep": 0 <= level <= 1000,
        "flow": 0 < level <= 1,
        "flow_timestep": 0 < level <= 1000,
    }
    if not possible[unit]:
        return None
    sigma = to_sigma(level, unit)
    step = min(range(len(sigmas)), key=lambda i: abs(math.log(sigmas[i] / sigma)))
    return step if math.isclose(sigmas[step], sigma, rel_tol=_SAME_LEVEL) else None
