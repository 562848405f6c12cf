"""refine: of plans with the same moves at other steps, the one that measures best.

What the search predicts of fitted steps is the error of each alone, while every later step takes
back part of what earlier ones erred: the kind and the number of the steps that compute come out
right, where they stand does not. So those steps are moved, one at a time, as long as a run on one
example gets better. Nothing here knows the target, so a higher one never gets a faster plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from turbo4d.runtime.errors import PlanError

if TYPE_CHECKING:
    from turbo4d.compiler.calibrate.search import Found, Steps

MOST = 8  # plans that are run for one place of the frontier
_SHIFTS = (1, -1, 2, -2)
Taken = tuple[tuple[str, int], ...]


def refined(
    found: Found,
    fitted: Mapping[str, tuple[int, ...]],
    made: Callable[[Steps], Found],
    score: Callable[[Found], float],
) -> Found:
    """The best plan that moving steps leads to.

    Args:
        found: to begin with.
        fitted: names of the moves that are fitted, each with its orders.
        made: the plan of some steps.
        score: what a plan measures, in dB.

    Returns:
        A plan of the same moves, so that it takes as long; `found` where none is better.
    """
    if not any(move in fitted for taken in found.steps.values() for move, _ in taken):
        return found
    best, height, spent = found, score(found), 1
    seen = {found.name}
    climbing = True
    while climbing and spent < MOST:
        climbing = False
        for steps in _neighbours(best.steps, fitted):
            other = made(steps)
            if other.name in seen or spent >= MOST:
                continue
            seen.add(other.name)
            spent += 1
            try:
                measured = score(other)
            except PlanError:  # a slot would be read unwritten, or too much be held
                continue
            if measured > height:
                best, height, climbing = other, measured, True
                break
    return best


def _neighbours(steps: Steps, fitted: Mapping[str, tuple[int, ...]]) -> Iterator[Steps]:
    for stream, taken in steps.items():
        for other in _moved(taken, fitted):
            yield {**steps, stream: _deepest(other, fitted)}


def _moved(taken: Taken, fitted: Mapping[str, tuple[int, ...]]) -> Iterator[Taken]:
    """The latest steps first: they matter most, and stand closest."""
    at = [place for place, (move, _) in enumerate(taken) if place and move not in fitted]
    for place in reversed(at):
        for shift in _SHIFTS:
            to = place + shift
            if 0 < to < len(taken) and taken[to][0] in fitted:
                yield _swapped(taken, place, to)
    for one, other in pairwise(at):
        if taken[one] != taken[other]:
            yield _swapped(taken, one, other)


def _swapped(taken: Taken, one: int, other: int) -> Taken:
    swapped = [*taken]
    swapped[one], swapped[other] = swapped[other], swapped[one]
    return tuple(swapped)


def _deepest(taken: Taken, fitted: Mapping[str, tuple[int, ...]]) -> Taken:
    """With every fitted step of the highest order that its place allows."""
    found: list[tuple[str, int]] = []
    values = 0
    for move, order in taken:
        if move in fitted:
            found.append((move, max(each for each in fitted[move] if each < max(1, values))))
        else:
            found.append((move, order))
            values += 1
    return tuple(found)
