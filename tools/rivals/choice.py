"""Which settings are worth the held-out scenes: of each system the cheapest at each target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

TARGETS_DB = (30.0, 35.0, 40.0)
# A setting is tried although its estimate lies so much below the target: the estimate may be wrong.
MARGIN_DB = 0.3
# Screening of a system ends after so many settings that surely reach the highest target.
ENOUGH, SURELY_DB = 3, 1.5


@dataclass(frozen=True)
class Point:
    """A setting and what is known of it.

    Args:
        system: whose.
        name: of the setting.
        effort: expected seconds.
        screened_db: PSNR on the screening scenes, None where it was not screened.
        measured_db: mean on the held-out scenes, None where it was not measured.
    """

    system: str
    name: str
    effort: float
    screened_db: float | None
    measured_db: float | None = None


def wanted(points: Sequence[Point]) -> list[str]:
    """Names of settings to measure next, in order; empty once each system's best are known.

    A setting that was not measured is estimated: screened, plus by how much the system's measured
    settings differ from theirs. For each target the cheapest that reaches it is wanted, and every
    cheaper one that may; where none does, the best.

    Args:
        points: of all systems.
    """
    found: dict[str, None] = {}
    for system in dict.fromkeys(point.system for point in points):
        own = [point for point in points if point.system == system]
        estimates = _estimates(own)
        known = [point for point in own if point.name in estimates]
        for target in TARGETS_DB:
            for point in _until(target, known, estimates):
                if point.measured_db is None:
                    found[point.name] = None
    return list(found)


def _until(target: float, points: Sequence[Point], estimates: dict[str, float]) -> Iterable[Point]:
    """Those that may reach the target, by effort, up to the first that is expected to."""
    if not points:
        return
    ordered = sorted(points, key=lambda point: (point.effort, -estimates[point.name]))
    if all(estimates[point.name] < target - MARGIN_DB for point in points):
        yield max(points, key=lambda point: estimates[point.name])
        return
    for point in ordered:
        if estimates[point.name] >= target - MARGIN_DB:
            yield point
        if estimates[point.name] >= target:
            return


def _estimates(points: Sequence[Point]) -> dict[str, float]:
    """Name -> PSNR, as it was measured or as it is expected."""
    offsets = [
        point.measured_db - point.screened_db
        for point in points
        if point.measured_db is not None and point.screened_db is not None
    ]
    offset = mean(offsets) if offsets else 0.0
    found = {
        point.name: point.screened_db + offset for point in points if point.screened_db is not None
    }
    return found | {
        point.name: point.measured_db for point in points if point.measured_db is not None
    }


def enough(screened_db: Iterable[float]) -> bool:
    """Whether dearer settings of a system need no screening.

    Args:
        screened_db: of the system's settings so far.
    """
    return sum(db >= TARGETS_DB[-1] + SURELY_DB for db in screened_db) >= ENOUGH
