"""The rival of a plan that reuses only parts: whole steps reused, down to the same PSNR."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from turbo4d.runtime.action import REUSE
from turbo4d.runtime.drift import DRIFT
from turbo4d.runtime.levels import to_sigma
from turbo4d.runtime.plan import Plan, RegionInfo
from turbo4d.runtime.policy import THRESHOLDS

_MAX_AGE = THRESHOLDS["fast"].max_age  # so that the rival may skip as many steps in a row


def rival_of(plan: Plan, regions: Sequence[RegionInfo]) -> str | None:
    """The name of the core, if the plan reuses parts of it and never the whole; else None."""
    core = next((region.name for region in regions if region.kind == "core"), None)
    named = {name for rows in plan.streams.values() for row in rows if row for name in row}
    return core if named and core not in named else None


def whole_step_plans(like: Plan, core: str) -> list[Plan]:
    """Every plan that the drift policy can make of the core alone, fewest computed steps first.

    Args:
        like: whose model, geometry and levels they share.
        core: the region's name.
    """
    sigmas = [to_sigma(level, like.level_unit) for level in like.levels]
    pairs = [(one, other) for at, one in enumerate(sigmas) for other in sigmas[at + 1 :]]
    found: dict[tuple[bool, ...], Plan] = {}
    for threshold in [0.0, *(drift(*pair) * (1 + 1e-9) for pair in pairs)]:
        reused = _reused(sigmas, threshold)
        rows = tuple({core: REUSE} if cell else {} for cell in reused)
        found[reused] = dataclasses.replace(
            like, name="whole-step", streams={"main": rows}, max_age=_MAX_AGE
        )
    return [found[reused] for reused in sorted(found, key=sum, reverse=True)]


def _reused(sigmas: Sequence[float], threshold: float) -> tuple[bool, ...]:
    """Per step whether the core is reused: while it drifted less than the threshold."""
    cells, computed = [False], 0
    for step in range(1, len(sigmas)):
        near = drift(sigmas[computed], sigmas[step]) < threshold
        cells.append(near and step - computed <= _MAX_AGE)
        computed = computed if cells[-1] else step
    return tuple(cells)


def drift(sigma_from: float, sigma_to: float) -> float:
    """How far the core drifts between two noise levels: the integral over ln(sigma)."""
    return abs(_drifted(math.log(sigma_from)) - _drifted(math.log(sigma_to)))


def _drifted(end: float) -> float:
    """From the table's first point to `end`, negative before it."""
    table = DRIFT["core"]
    (first, density), (last, last_density) = table[0], table[-1]
    if end <= first:
        return (end - first) * density
    total = max(0.0, end - last) * last_density
    for (left, low), (right, high) in pairwise(table):
        stop = min(end, right)
        if stop > left:
            at_stop = low + (high - low) * (stop - left) / (right - left)
            total += (stop - left) * (low + at_stop) / 2
    return total


def computed_steps(plan: Plan) -> int:
    """Steps of a whole-step plan that reuse nothing."""
    return sum(not row for row in plan.streams["main"])


def fewest_steps(
    plans: Sequence[Plan], reaches: Callable[[Plan], bool], say: Callable[[str], None]
) -> Plan:
    """The first of the plans that reaches the PSNR, taking it to rise with the computed steps.

    Args:
        plans: fewest computed steps first; the last one computes every step and always reaches it.
        reaches: samples under a plan and judges.
        say: told what is going on.
    """
    low, high = 0, len(plans) - 1
    while low < high:
        middle = (low + high) // 2
        say(f"whole-step reuse with {computed_steps(plans[middle])} computed steps")
        if reaches(plans[middle]):
            high = middle
        else:
            low = middle + 1
    return plans[low]
