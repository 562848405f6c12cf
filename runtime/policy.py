"""Presets: policies over the noise level that become a plan once the levels are known.

A policy adds up how far the model's features drift from one noise level to the next. While the
drift since the last step that computed everything is small, a step reuses the largest regions it
may; as it grows, smaller ones; then it computes everything again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .action import REUSE, Action
from .errors import OptionError
from .geometry import Geometry
from .levels import LevelUnit, check_levels, infer_unit, to_sigma, without_end
from .plan import Plan, RegionInfo, RegionKind, Row

# Drift per unit of ln(sigma), at points of ln(sigma), rising; linear between, constant beyond.
# To be measured on nano: 1 minus the cosine of a chain's residual at neighbouring levels, divided
# by their distance in ln(sigma). Until then it follows a scratch network on SV4D's schedule:
# hardly any drift above sigma 20, most between 12 and 0.1.
DRIFT: tuple[tuple[float, float], ...] = (
    (-6.2, 0.05),
    (-3.5, 0.08),
    (-2.3, 0.45),
    (2.5, 0.45),
    (3.0, 0.03),
    (6.6, 0.01),
)


@dataclass(frozen=True)
class Thresholds:
    """How much drift a preset accepts before it stops reusing a kind of region.

    Args:
        drift: per kind; a kind that is not named is never reused.
        max_age: steps a slot may be old.
    """

    drift: Mapping[RegionKind, float]
    max_age: int


# To be tuned by measurement, with DRIFT. A larger region that is reused leaves out the smaller
# ones, so it accepts less drift.
THRESHOLDS: dict[str, Thresholds] = {
    "quality": Thresholds({"core": 0.01, "level": 0.02, "chain": 0.10, "block": 0.10}, 3),
    "balanced": Thresholds({"core": 0.03, "level": 0.06, "chain": 0.30, "block": 0.30}, 4),
    "fast": Thresholds({"core": 0.10, "level": 0.20, "chain": 0.60, "block": 0.60}, 6),
}
PRESETS = ("none", "exact", *THRESHOLDS)
KINDS: tuple[RegionKind, ...] = ("core", "level", "chain", "block")  # the largest first
# What a preset reuses unless told otherwise, where the model has it.
DEFAULT_KINDS: tuple[RegionKind, ...] = ("core", "chain")
_MAX_VARIANTS = 8


def resolve(
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
) -> Plan:
    """A preset as a plan.

    Args:
        preset: one of `PRESETS`.
        levels: the noise level of each step, falling; a closing zero is no step.
        level_unit: of the levels, None to infer it.
        model: fingerprint of the captured graph.
        geometry: what the model was captured for.
        regions: of the model.
        streams: names, or per name the steps at which it runs (None: all).
        use: kinds of regions that may be reused, None for core and chain where there are any.
        max_cache_bytes: bound on all slots together.

    Raises:
        OptionError: where preset or kind is unknown, or the model has no region of the kind.
        PlanError: where the levels are no schedule.
    """
    if preset not in PRESETS:
        raise OptionError(f"preset {preset!r} is unknown; there are {', '.join(sorted(PRESETS))}.")
    fed = without_end(levels, None)
    unit = level_unit or infer_unit(fed)
    visits = streams if isinstance(streams, Mapping) else dict.fromkeys(streams)
    thresholds = THRESHOLDS.get(preset, Thresholds({}, 0))
    check_levels(fed, unit)
    by_kind = reusable(regions, use) if thresholds.drift else {}
    sigmas = [to_sigma(level, unit) for level in fed]
    return Plan(
        name=preset,
        model=model,
        geometry=geometry,
        levels=fed,
        level_unit=unit,
        streams={name: _rows(sigmas, thresholds, by_kind, at) for name, at in visits.items()},
        max_age=thresholds.max_age,
        max_variants=_MAX_VARIANTS if thresholds.drift else 1,
        max_cache_bytes=max_cache_bytes,
        exact=preset != "none",
    )


def reusable(
    regions: Sequence[RegionInfo], use: Collection[str] | None
) -> dict[RegionKind, tuple[str, ...]]:
    """Per kind, the largest first, the regions that no other region of the kind holds.

    Raises:
        OptionError: where a kind is unknown or the model has no such region.
    """
    parents = {region.name: region for region in regions}
    found: dict[RegionKind, list[str]] = {}
    for region in regions:
        outer = parents.get(region.parent or "")
        while outer is not None and outer.kind != region.kind:
            outer = parents.get(outer.parent or "")
        if outer is None:
            found.setdefault(region.kind, []).append(region.name)
    for kind in use or ():
        if kind not in KINDS:
            raise OptionError(f"kind {kind!r} is unknown; there are {', '.join(sorted(KINDS))}.")
        if kind not in found:
            raise OptionError(
                f"kind {kind!r}: the model has no such region; "
                f"it has {', '.join(sorted(found)) or 'none at all'}."
            )
    wanted = DEFAULT_KINDS if use is None else use
    if not found.keys() & {*wanted}:
        raise OptionError(
            f"preset: the model has no region of kind {', '.join(sorted(wanted))}; it has "
            f"{', '.join(sorted(found)) or 'none at all'}. Use plan 'exact' or other kinds."
        )
    return {kind: tuple(found[kind]) for kind in KINDS if kind in wanted and kind in found}


def drift(
    sigma_from: float, sigma_to: float, table: Sequence[tuple[float, float]] = DRIFT
) -> float:
    """How far features drift between two noise levels: the table's integral over ln(sigma)."""
    return abs(_integral(math.log(sigma_from), table) - _integral(math.log(sigma_to), table))


def _integral(end: float, table: Sequence[tuple[float, float]]) -> float:
    """From the table's first point to `end`, negative before it."""
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


def _rows(
    sigmas: Sequence[float],
    thresholds: Thresholds,
    by_kind: Mapping[RegionKind, tuple[str, ...]],
    visited: Collection[int] | None,
) -> tuple[Row, ...]:
    rows: list[dict[str, Action] | None] = []
    computed: int | None = None
    for step, sigma in enumerate(sigmas):
        if visited is not None and step not in visited:
            rows.append(None)
            continue
        names: tuple[str, ...] = ()
        if computed is not None and step - computed <= thresholds.max_age:
            drifted = drift(sigmas[computed], sigma)
            fitting = (n for kind, n in by_kind.items() if drifted < thresholds.drift.get(kind, 0))
            names = next(fitting, ())
        if not names:
            computed = step
        rows.append(dict.fromkeys(names, REUSE))
    return tuple(rows)
