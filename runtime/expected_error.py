"""What reusing a region at a step is expected to add to the final error, on a typical scene.

    error = sensitivity(level of the step) x change since the slot was written x weight of the step

The weight is the share of the remaining noise that the step takes away: what a step gets wrong
enters Euler's method with it. The sensitivity follows from two measurements, of the error that one
reuse of the step before leaves in the final latent (drift) and of how much the value changes
meanwhile (trajectory). The sum over a plan's steps ranks plans as their measured errors do; see
tools/results/README.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise

from .action import Action
from .drift import DRIFT, measured_as
from .region_info import RegionInfo, RegionKind
from .trajectory import POINTS, expected_change


def expected_error(
    kind: RegionKind, sigma_from: float, sigma_to: float, sigma_next: float
) -> float:
    """Of the final latent, relative (L2), where regions of a kind are reused at one step.

    Args:
        kind: of region; all of the kind are taken to be reused.
        sigma_from: of the step that wrote the slots.
        sigma_to: of the step that reads them.
        sigma_next: of the step after it, 0 after the last.
    """
    weight = 1.0 - sigma_next / sigma_to
    return (
        _sensitivity(math.log(sigma_to), kind)
        * weight
        * expected_change(sigma_from, sigma_to, kind)
    )


def row_error(
    row: Mapping[str, Action],
    sources: Mapping[str, int],
    step: int,
    sigmas: Sequence[float],
    regions: Mapping[str, RegionInfo],
) -> float:
    """What a row of a plan is expected to add, by the oldest slot of each kind that it reads.

    Args:
        row: region -> action. What is bypassed is not counted: it errs whenever it is left out.
        sources: per slot the step that wrote it last.
        step: that takes the row.
        sigmas: of the steps.
        regions: by name.
    """
    sigma_next = sigmas[step + 1] if step + 1 < len(sigmas) else 0.0
    oldest: dict[RegionKind, tuple[int, float]] = {}
    for name, action in row.items():
        if action.reads:
            kind, share = regions[name].kind, 1.0 - (action.keep or 0.0)
            source, most = oldest.get(kind, (step, 0.0))
            oldest[kind] = min(source, sources[name]), max(most, share)
    return sum(
        share * expected_error(kind, sigmas[source], sigmas[step], sigma_next)
        for kind, (source, share) in oldest.items()
    )


def _sensitivity(place: float, kind: RegionKind) -> float:
    """At ln(sigma): linear between the measured levels, the nearest beyond them."""
    table = _sensitivities(measured_as(kind))
    if place >= table[0][0]:
        return table[0][1]
    for (left, high), (right, low) in pairwise(table):
        if place >= right:
            return low + (high - low) * (place - right) / (left - right)
    return table[-1][1]


@cache
def _sensitivities(kind: RegionKind) -> Sequence[tuple[float, float]]:
    """ln(sigma), falling, and what a change of one at that level adds to the final error."""
    found: list[tuple[float, float]] = []
    levels = [level for level, _ in POINTS[kind]]
    densities = [density for _, density in reversed(DRIFT[kind])]
    for index, (before, level) in enumerate(pairwise(levels)):
        after = levels[index + 2] if index + 2 < len(levels) else -math.inf
        change = expected_change(math.exp(before), math.exp(level), kind)
        weight = 1.0 - math.exp(after - level)
        found.append((level, densities[index] * (before - level) / (change * weight)))
    return found
