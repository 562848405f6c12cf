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
LostKind = Literal["repeated-level", "unknown-level", "skipped-step", "no-schedule"]


@dataclass(frozen=True)
class Sighting:
    """What one call turned out to be.

    Args:
        step: of the schedule, None where it cannot be told.
        begins: whether the call is the first of a run.
        lost: at the call that puts a run out of reach, why.
    """

    step: int | None
    begins: bool
    lost: tuple[LostKind, str] | None = None


class RunWatch:
    """Watches the levels go by. A run ends where the level rises or the schedule is complete.

    Once a step of a run cannot be told, none after it can, up to the next run.

    Args:
        schedule: the levels of every run, where they are known; else they are learnt from the
            first complete run, and again from one that does not follow them.
        unit: of the levels to learn, None to infer it.
    """

    def __init__(self, schedule: Schedule | None, unit: LevelUnit | None) -> None:
        self.schedule = schedule
        self._learns = schedule is None
        self._unit: LevelUnit | None = unit
        self._fed_unit: LevelUnit | None = None
        self._seen: list[float] = []
        self._last: int | None = None
        self._lost: LostKind | None = None

    def see(self, level: float) -> Sighting:
        """Takes note of one call.

        Args:
            level: that the model is fed, in its own unit.
        """
        unlearnt = None
        if begins := self._begins(level):
            unlearnt = self._learn()
            self._seen, self._last, self._lost = [], None, None
        repeated = not begins and level == self._seen[-1]
        self._seen.append(level)
        if repeated and self._lost is None:
            return self._lose(
                "repeated-level",
                f"noise level {level:g} came twice in a row, as where guidance branches are called "
                "one by one; open turbo4d.session and name a stream for each",
            )
        if self.schedule is None or self._lost is not None:
            return Sighting(None, begins, unlearnt)
        return self._tell(level, begins, self.schedule)

    def forget(self) -> None:
        """Starts over after a call without a level: the next call begins a run."""
        self._seen, self._last, self._lost = [], None, None

    def _begins(self, level: float) -> bool:
        if not self._seen or level > self._seen[-1]:
            return True
        if self.schedule is None:
            # A call to warm up stands before the run that it seems to belong to.
            return len(self._seen) == 1 and level == self._seen[-1]
        return self._last == len(self.schedule.levels) - 1

    def _learn(self) -> tuple[LostKind, str] | None:
        """Learns the levels of the run that is over, or tells why they are no schedule."""
        follows = self.schedule is not None and self._lost is None
        # One call is no run, and a run with repeated levels shows no schedule.
        if not self._learns or follows or len(self._seen) < 2 or self._lost == "repeated-level":
            return None
        schedule = Schedule.of(self._seen, self._unit)
        try:
            check_levels(schedule.levels, schedule.unit)
        except PlanError as error:
            return "no-schedule", str(error).rstrip(".")
        self.schedule, self._fed_unit = schedule, schedule.unit
        return None

    def _tell(self, level: float, begins: bool, schedule: Schedule) -> Sighting:
        step = self._match(level, schedule)
        wanted = 0 if self._last is None else self._last + 1
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


def _nearest(level: float, unit: LevelUnit, sigmas: list[float]) -> int | None:
    """The step whose sigma is nearest, None where it is not near."""
    possible = {
        "sigma": 0 < level < math.inf,
        "c_noise": abs(level) < 100,
        "timestep": 0 <= level <= 1000,
    }
    if not possible[unit]:
        return None
    sigma = to_sigma(level, unit)
    step = min(range(len(sigmas)), key=lambda i: abs(math.log(sigmas[i] / sigma)))
    return step if math.isclose(sigmas[step], sigma, rel_tol=_SAME_LEVEL) else None
