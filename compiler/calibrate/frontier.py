"""frontier: plans for rising budgets, and the choice of one by what they measure.

Ask for more and the plan never gets faster, by construction: along the frontier predicted time only
rises (`settle`), and a higher target never chooses an earlier place of it (`choose`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from turbo4d.compiler.calibrate.search import Found

GRID_DB = tuple(20.0 + 0.25 * step for step in range(161))  # budgets, the loosest first
# Plans before the one that bisection finds, each no slower, which are measured too: plans of nearly
# equal prediction differ by a decibel or two in what they measure.
NEARBY = 3
APART = 0.03  # of a plan's time; plans that lie closer are not all run


@dataclass(frozen=True)
class Place:
    """One budget and its plan.

    Args:
        budget_db: of predicted error; infinite for the plan that computes everything.
        found: the plan.
    """

    budget_db: float
    found: Found


def settle(places: Sequence[Place]) -> tuple[Place, ...]:
    """Gives each budget the fastest plan of those found for it or for a tighter one.

    Where the solver stopped short of a proof, a tighter budget may have the faster plan.
    """
    settled: list[Place] = []
    for place in reversed(places):
        best = place.found
        if settled and settled[-1].found.seconds <= best.seconds:
            best = settled[-1].found
        settled.append(replace(place, found=best))
    return tuple(reversed(settled))


def distinct(places: Sequence[Place]) -> tuple[int, ...]:
    """The places whose plan takes longer than that of the one before by `APART`, and the last."""
    found: list[int] = []
    for at, place in enumerate(places):
        before = places[found[-1]].found if found else None
        if before is None or place.found.seconds >= (1 + APART) * before.seconds:
            found.append(at)
    last = len(places) - 1
    if places and places[found[-1]].found.name != places[last].found.name:
        found.append(last)
    return tuple(found)


def choose(
    count: int, measured: Callable[[int], float], target: float, nearby: int = NEARBY
) -> int | None:
    """The place of the plan to take.

    Bisection finds a place that measures the target; of it and the `nearby` places before it the
    first that measures the target is taken. What bisection looks at follows from the places' own
    figures, so a higher target takes the same turns until it turns to later places; and what it
    then chooses, a lower target would have chosen too, or gone before.

    Args:
        count: of places, predicted time rising.
        measured: what a place measures, in dB; asked of few places, and always says the same.
        target: in dB.
        nearby: how many places before are looked at.

    Returns:
        The place; None where bisection finds none that measures the target.
    """
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if measured(middle) >= target:
            high = middle
        else:
            low = middle + 1
    if low == count:
        return None
    return next(at for at in range(max(0, low - nearby), low + 1) if measured(at) >= target)
