"""Presets: policies over the noise level that become a plan once the levels are known.

A policy adds up how far the model's features drift from one noise level to the next. A step reuses
the largest kind of region whose slots were written little drift ago; as the drift grows, a smaller
kind; then it computes everything again. A step that reuses small regions executes the larger ones
around them, so their slots are fresh from there on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from .action import REUSE, Action
from .drift import drift
from .errors import OptionError
from .geometry import Geometry
from .levels import LevelUnit, check_levels, infer_unit, to_sigma, without_end
from .plan import Plan, RegionInfo, RegionKind, Row


@dataclass(frozen=True)
class Thresholds:
    """How much drift a preset accepts before it stops reusing a kind of region.

    Args:
        drift: per kind; a kind that is not named is never reused.
        max_age: steps a slot may be old.
    """

    drift: Mapping[RegionKind, float]
    max_age: int


# How much final error a slot may stand for, by its kind's own drift. A level's slot drifts six
# times slower than the core's where it matters, since the highest resolution is executed around it;
# chains drift as fast as the core, and save less: they serve networks that have no levels.
THRESHOLDS: dict[str, Thresholds] = {
    "quality": Thresholds({"core": 0.009, "level": 0.006, "chain": 0.015, "block": 0.015}, 40),
    "balanced": Thresholds({"core": 0.029, "level": 0.004, "chain": 0.029, "block": 0.029}, 40),
    "fast": Thresholds({"core": 0.0315, "level": 0.012, "chain": 0.034, "block": 0.034}, 40),
}
PRESETS = ("none", "exact", *THRESHOLDS)
KINDS: tuple[RegionKind, ...] = ("core", "level", "chain", "block")  # the largest first
# What a preset reuses unless told otherwise, where the model has it.
DEFAULT_KINDS: tuple[RegionKind, ...] = ("core", "level", "chain")
_MAX_VARIANTS = 8
ANALYTIC = (
    "analytic: thresholds over the noise level, by the drift of nano's features; not measured on "
    "this model and schedule"
)
NOTHING_REUSED = "every step computes everything"


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
        use: kinds of regions that may be reused, None for core, level and chain.
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
        streams={name: rows_of(sigmas, thresholds, by_kind, at) for name, at in visits.items()},
        max_age=thresholds.max_age,
        max_variants=_MAX_VARIANTS if thresholds.drift else 1,
        max_cache_bytes=max_cache_bytes,
        exact=preset != "none",
        origin=ANALYTIC if thresholds.drift else NOTHING_REUSED,
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


def rows_of(
    sigmas: Sequence[float],
    thresholds: Thresholds,
    by_kind: Mapping[RegionKind, tuple[str, ...]],
    visited: Collection[int] | None = None,
) -> tuple[Row, ...]:
    """What a policy does at each step.

    Args:
        sigmas: of the steps.
        thresholds: of the policy.
        by_kind: the regions it may reuse, the largest kind first; see `reusable`.
        visited: the steps at which the stream runs, None for all.
    """
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
        if drift(sigmas[since], sigmas[step], kind) < thresholds.drift.get(kind, 0.0):
            return kind
    return None
