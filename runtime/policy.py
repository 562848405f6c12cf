"""Presets: policies over the noise level that become a plan once the levels are known.

A policy adds up how far the model's features drift from one noise level to the next. A step reuses
the largest kind of region whose slots were written little drift ago; as the drift grows, a smaller
kind; then it computes everything again. A step that reuses small regions executes the larger ones
around them, so their slots are fresh from there on.
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

# Drift per unit of ln(sigma), at points of ln(sigma), rising; linear between, constant beyond:
# the relative error of the final latent when the step before is used again at this level. Measured
# on nano-v1, 20 steps, by tools/measure_drift.py (tools/results/drift-nano-v1.json); another
# network on the same schedule may drift otherwise.
DRIFT: tuple[tuple[float, float], ...] = (
    (-5.369, 0.000155),
    (-3.842, 0.003317),
    (-2.592, 0.017934),
    (-1.532, 0.02802),
    (-0.613, 0.076835),
    (0.199, 0.139352),
    (0.927, 0.086465),
    (1.585, 0.030715),
    (2.187, 0.010578),
    (2.742, 0.003071),
    (3.255, 0.000858),
    (3.733, 0.000263),
    (4.181, 9.4e-05),
    (4.602, 3.9e-05),
    (4.999, 1.9e-05),
    (5.374, 1e-05),
    (5.731, 6e-06),
    (6.07, 3e-06),
    (6.393, 2e-06),
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


# How much final error a slot may stand for. Reusing chains errs less than reusing the core, since
# the residual blocks around them are executed, but saves less too.
THRESHOLDS: dict[str, Thresholds] = {
    "quality": Thresholds({"core": 0.012, "level": 0.012, "chain": 0.015, "block": 0.015}, 40),
    "balanced": Thresholds({"core": 0.029, "level": 0.029, "chain": 0.029, "block": 0.029}, 40),
    "fast": Thresholds({"core": 0.0315, "level": 0.0315, "chain": 0.034, "block": 0.034}, 40),
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


def drift(sigma_from: float, sigma_to: float) -> float:
    """How far features drift between two noise levels: the integral of DRIFT over ln(sigma)."""
    return abs(_integral(math.log(sigma_from), DRIFT) - _integral(math.log(sigma_to), DRIFT))


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
    written: dict[RegionKind, int] = {}  # step at which a kind's regions were last executed
    for step in range(len(sigmas)):
        if visited is not None and step not in visited:
            rows.append(None)
            continue
        reused = _largest_fresh(step, sigmas, thresholds, by_kind, written)
        # A region that holds the reused ones is executed around them.
        executed = KINDS if reused is None else KINDS[: KINDS.index(reused)]
        written.update(dict.fromkeys(executed, step))
        names = () if reused is None else by_kind[reused]
        rows.append(dict.fromkeys(names, REUSE))
    return tuple(rows)


def _largest_fresh(
    step: int,
    sigmas: Sequence[float],
    thresholds: Thresholds,
    kinds: Collection[RegionKind],
    written: Mapping[RegionKind, int],
) -> RegionKind | None:
    """The largest kind whose slots were written recently enough, in steps and in drift."""
    for kind in kinds:
        since = written.get(kind)
        if since is None or step - since > thresholds.max_age:
            continue
        if drift(sigmas[since], sigmas[step]) < thresholds.drift.get(kind, 0.0):
            return kind
    return None
