"""Presets: policies over the noise level that become a plan once the levels are known.

A policy asks how much of the run has passed since a slot was written, and how much of it the step
itself makes (`Passage`). A step reuses the largest kind of region whose slots were written little
ago; as more passes, a smaller kind; then it computes everything again. A step that reuses small
regions executes the larger ones around them, so their slots are fresh from there on. A kind of
which a smaller one skips nearly as much is left out.

A slot's last two values are extrapolated to the step's level where that is no further from the
newest than the newest is from the one before: the error is then at most what one value would leave
times the share of the change that turned meanwhile, and no value is weighted by more than 2. Not so
from two steps that follow each other: what changes between these is little, and no trend.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from .action import Action
from .errors import OptionError
from .geometry import Geometry
from .levels import LevelUnit, check_levels, infer_unit, to_sigma, without_end
from .passage import Passage
from .plan import Plan, RegionInfo, RegionKind, Row


@dataclass(frozen=True)
class Thresholds:
    """How much of a run a preset lets pass before it stops reusing a kind of region.

    Args:
        passed: per kind, as `Passage.weighed`; a kind that is not named is never reused.
        max_age: steps a slot may be old.
        order: of the extrapolation, 0 for none or 1.
    """

    passed: Mapping[RegionKind, float]
    max_age: int
    order: int = 1


def _alike(passed: float) -> Thresholds:
    """One threshold for all kinds: the largest is reused, or the one that stands for it."""
    return Thresholds(dict.fromkeys(("core", "level", "chain", "block"), passed), 40)


THRESHOLDS: dict[str, Thresholds] = {
    "quality": _alike(0.07),
    "balanced": _alike(0.1),
    "fast": _alike(0.18),
}
PRESETS = ("none", "exact", *THRESHOLDS)
KINDS: tuple[RegionKind, ...] = ("core", "level", "chain", "block")  # the largest first
# What a preset reuses unless told otherwise, where the model has it.
DEFAULT_KINDS: tuple[RegionKind, ...] = ("core", "level", "chain")
_MAX_VARIANTS = 8
# A smaller kind that skips this much of what a larger one does stands for it: what is around its
# regions is computed at each step, and so are the gates of a transformer that is told the level.
_AS_MUCH = 0.9
# An extrapolation reaches as far as the slot's last two values are apart; a little more, since
# levels that are evenly spaced are so but for rounding.
_REACH = 1.01
_ONE_LEVEL = 1e-6  # levels this close in ln(sigma) may be one in another unit
ANALYTIC = (
    "analytic: thresholds over the noise level, by what the sampler makes of a step; not measured "
    "on this model and schedule"
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
        levels: the noise level of each step, falling; a closing zero of sigmas is no step.
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
    fed = without_end(levels, None, level_unit)
    unit = level_unit or infer_unit(fed)
    visits = streams if isinstance(streams, Mapping) else dict.fromkeys(streams)
    thresholds = THRESHOLDS.get(preset, Thresholds({}, 0))
    check_levels(fed, unit)
    sigmas = [to_sigma(level, unit) for level in fed]
    plan = Plan(
        name=preset,
        model=model,
        geometry=geometry,
        levels=fed,
        level_unit=unit,
        streams={name: rows_of(sigmas, thresholds, {}, at) for name, at in visits.items()},
        max_age=thresholds.max_age,
        max_variants=_MAX_VARIANTS if thresholds.passed else 1,
        max_cache_bytes=max_cache_bytes,
        exact=preset != "none",
        origin=ANALYTIC if thresholds.passed else NOTHING_REUSED,
    )
    if not thresholds.passed:
        return plan
    kinds = reusable(regions, use)
    # The best first; where its slots do not fit, fewer values of each, then fewer and larger slots.
    plans = [
        replace(plan, streams={n: rows_of(sigmas, each, of, at) for n, at in visits.items()})
        for of in (_without_copies(kinds, regions), kinds)
        for each in (thresholds, replace(thresholds, order=0))
    ]
    for found in plans:
        if max_cache_bytes is None or _peak_bytes(found, regions) <= max_cache_bytes:
            return found
    return plans[-1]


def _peak_bytes(plan: Plan, regions: Sequence[RegionInfo]) -> int:
    return replace(plan, max_cache_bytes=None).check(regions).peak_bytes


def _without_copies(
    kinds: Mapping[RegionKind, tuple[str, ...]], regions: Sequence[RegionInfo]
) -> dict[RegionKind, tuple[str, ...]]:
    """The kinds but for those of which a smaller one skips nearly as much."""
    flops = {region.name: region.flops for region in regions}
    skipped = {kind: sum(flops[name] for name in names) for kind, names in kinds.items()}
    return {
        kind: names
        for at, (kind, names) in enumerate(kinds.items())
        if all(skipped[other] < _AS_MUCH * skipped[kind] for other in [*kinds][at + 1 :])
    }


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
    passage = Passage(sigmas)
    visits = range(len(sigmas)) if visited is None else visited
    rows: list[dict[str, Action] | None] = []
    written: dict[RegionKind, list[int]] = {kind: [] for kind in KINDS}
    for step in range(len(sigmas)):
        if visited is not None and step not in visited:
            rows.append(None)
            continue
        reused = _largest_fresh(step, passage, thresholds, by_kind, written)
        # A region that holds the reused ones is executed around them.
        executed = KINDS if reused is None else KINDS[: KINDS.index(reused)]
        names = () if reused is None else by_kind[reused]
        order = 0
        if reused is not None:
            order = _order(step, passage, thresholds, written[reused], visits)
        rows.append(dict.fromkeys(names, Action("reuse", order=order)))
        for kind in executed:
            written[kind].append(step)
    return tuple(rows)


def _largest_fresh(
    step: int,
    passage: Passage,
    thresholds: Thresholds,
    kinds: Collection[RegionKind],
    written: Mapping[RegionKind, Sequence[int]],
) -> RegionKind | None:
    """The largest kind whose slots were written recently enough, in steps and in what passed."""
    for kind in kinds:
        if not written[kind] or step - written[kind][-1] > thresholds.max_age:
            continue
        if passage.weighed(written[kind][-1], step) < thresholds.passed.get(kind, 0.0):
            return kind
    return None


def _order(
    step: int,
    passage: Passage,
    thresholds: Thresholds,
    written: Sequence[int],
    visits: Collection[int],
) -> int:
    """The order of a reuse: 1 where two values are held and the step is not beyond their reach."""
    if not thresholds.order or len(written) < 2:
        return 0
    before, newest = written[-2:]
    if not any(before < visit < newest for visit in visits):
        return 0
    held, beyond = passage.apart(before, newest), passage.apart(newest, step)
    return int(_ONE_LEVEL < beyond <= _REACH * held)
