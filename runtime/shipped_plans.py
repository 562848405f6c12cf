"""Plans that were calibrated for a model and come with turbo4d, and presets that stand in for them.

A preset's name means a shipped plan where there is one for this very model, geometry, schedule and
weights; else the policy of that name, whose plan says in its origin that it was not measured here.
The files lie in `plans/`; `tools/ship_plan.py` puts one there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from .geometry import Geometry
from .levels import LevelUnit, check_levels, infer_unit, to_sigma, without_end
from .plan import Plan, RegionInfo
from .policy import resolve

FOLDER = Path(__file__).parent / "plans"
# Levels of one schedule computed in two precisions differ by less than this.
_SAME_LEVEL = 1e-3


@cache
def shipped_plans(folder: Path = FOLDER) -> tuple[Plan, ...]:
    """The plans of a folder, by file name.

    Raises:
        PlanError: a file that holds no plan.
    """
    return tuple(Plan.load(path) for path in sorted(folder.glob("*.json")))


def preset_plan(
    preset: str,
    *,
    levels: Sequence[float],
    level_unit: LevelUnit | None = None,
    model: str,
    geometry: Geometry,
    regions: Sequence[RegionInfo],
    streams: Sequence[str] | Mapping[str, Collection[int] | None] = ("main",),
    use: Collection[str] | None = None,
    max_cache_bytes: int | None = None,
    weights: bool = True,
    digest: Callable[[], str] | None = None,
) -> Plan:
    """A preset as a plan: the shipped one where it fits, else the policy's.

    Args:
        preset: one of `policy.PRESETS`.
        levels: as in `policy.resolve`, and so what follows.
        level_unit: of the levels.
        model: fingerprint of the captured graph.
        geometry: what the model was captured for.
        regions: of the model.
        streams: a shipped plan serves those it has, at all their steps.
        use: kinds of regions; who names them wants the policy.
        max_cache_bytes: bound on all slots; a shipped plan that needs more is left for the policy.
        weights: whether a shipped plan may reuse by weights of its own.
        digest: tells the digest of the network's weights; None where they are not known, so that a
            plan fitted to any will do.

    Raises:
        OptionError: as `policy.resolve`.
        PlanError: as `policy.resolve`.
    """
    for plan in shipped_plans():
        same = (plan.name, plan.model, plan.geometry) == (preset, model, geometry)
        if not same or use is not None or not _follows(plan, levels, level_unit, streams):
            continue
        if not weights and _has_weights(plan):
            continue
        if digest is not None and plan.weights_sha256 and plan.weights_sha256 != digest():
            continue
        if max_cache_bytes is None:
            return plan
        if plan.check(regions).peak_bytes <= max_cache_bytes:
            return replace(plan, max_cache_bytes=max_cache_bytes)
    return resolve(
        preset,
        levels=levels,
        level_unit=level_unit,
        model=model,
        geometry=geometry,
        regions=regions,
        streams=streams,
        use=use,
        max_cache_bytes=max_cache_bytes,
    )


def _has_weights(plan: Plan) -> bool:
    cells = (row or {} for rows in plan.streams.values() for row in rows)
    return any(action.mix for row in cells for action in row.values())


def _follows(
    plan: Plan,
    levels: Sequence[float],
    level_unit: LevelUnit | None,
    streams: Sequence[str] | Mapping[str, Collection[int] | None],
) -> bool:
    """Whether a run has a plan's levels, and its streams at all steps."""
    fed = without_end(levels, None, level_unit)
    unit = level_unit or infer_unit(fed)
    check_levels(fed, unit)
    visits = streams if isinstance(streams, Mapping) else dict.fromkeys(streams)
    if len(fed) != plan.steps or {*visits} != {*plan.streams}:
        return False
    if any(at is not None and len(at) < plan.steps for at in visits.values()):
        return False
    return all(
        math.isclose(to_sigma(own, plan.level_unit), to_sigma(given, unit), rel_tol=_SAME_LEVEL)
        for own, given in zip(plan.levels, fed, strict=True)
    )
