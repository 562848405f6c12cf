"""wanted: what of a module a bundle is to hold: which plan, and so which variants."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from turbo4d.compiler.analysis import Analysis
from turbo4d.compiler.backend import signature_of
from turbo4d.runtime.errors import OptionError
from turbo4d.runtime.levels import LevelUnit
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.plan_check import PlanCheck
from turbo4d.runtime.plan_source import PlanSource, Schedule, read_plan
from turbo4d.runtime.variant_key import VariantKey
from turbo4d.runtime.weights_digest import fitted_to_others, weights_digest

Form = Literal["variants", "conditional"]


@dataclass(frozen=True)
class Wanted:
    """What of a module a bundle is to hold; see `front_door.build` for each.

    Args:
        plan: a preset's name, a plan or its file.
        levels: of the run; a preset needs them.
        level_unit: of the levels.
        geometry: what is known of it.
        invariant: what of the inputs stays the same for a run, or does not.
        streams: that a preset is planned for, each with the steps at which it runs or None for all.
        use: kinds of regions that a preset may reuse.
        max_cache_bytes: bound on all slots together.
        form: an engine for each variant, or one for all.
    """

    plan: str | os.PathLike[str] | Plan
    levels: Sequence[float] | Tensor | None = None
    level_unit: LevelUnit | None = None
    geometry: Mapping[str, int | str] | None = None
    invariant: Mapping[str, str | bool] | None = None
    streams: Sequence[str] | Mapping[str, Collection[int] | None] | None = None
    use: Collection[str] | None = None
    max_cache_bytes: int | None = None
    form: Form = "variants"

    def __post_init__(self) -> None:
        if self.form not in ("variants", "conditional"):
            raise OptionError(f"form is {self.form!r}; choose 'conditional' or 'variants'.")


def planned(analysis: Analysis, wanted: Wanted) -> tuple[Plan, PlanCheck]:
    """The plan that the options mean for a model, and its proof.

    Raises:
        PlanError: a plan for another model, geometry or schedule, or a preset without levels.
    """
    given = read_plan(wanted.plan)
    if isinstance(given, Plan):
        if wanted.streams is not None:
            raise OptionError(
                f"streams are given beside plan {given.name!r}, which has its own: "
                f"{', '.join(map(repr, sorted(given.streams)))}; leave them out."
            )
        streams: dict[str, Collection[int] | None] = dict.fromkeys(given.streams)
    elif isinstance(wanted.streams, Mapping):
        streams = dict(wanted.streams)
    else:
        names = wanted.streams or ("main",)
        streams = dict.fromkeys([names] if isinstance(names, str) else names)
    levels = wanted.levels
    schedule = None if levels is None else Schedule.of(levels, wanted.level_unit, plan=given)
    steps = range(len(schedule.levels)) if schedule is not None else ()
    source = PlanSource(
        given,
        signature_of(analysis),
        schedule,
        wanted.use,
        wanted.max_cache_bytes,
        {name: steps if at is None else at for name, at in streams.items()},
        digest=lambda: digest_of(analysis),
    )
    if not streams:
        raise OptionError("streams are given and empty; name one, or leave them out.")
    opened = [source.open(stream) for stream in streams]
    return opened[-1]


def digest_of(analysis: Analysis) -> str:
    """The digest of the model's weights, as a fitted plan names them."""
    return weights_digest(analysis.capture.weights.items())


def notes_on(plan: Plan, analysis: Analysis) -> tuple[str, ...]:
    """What is not as it should be about a plan that can be carried out."""
    said = fitted_to_others(plan.name, plan.weights_sha256, lambda: digest_of(analysis))
    return () if said is None else (said,)


def keys_of(plan: Plan, check: PlanCheck) -> tuple[VariantKey, ...]:
    """The variants of a plan, then the full ones that the runtime falls back to.

    Where a slot that a step reads holds nothing, everything is computed and every slot that the
    stream reads is filled (`runtime.execution`); where step or stream cannot be told, everything is
    computed and nothing is written (`runtime.full_calls`).
    """
    full = [VariantKey((), (), plan.exact)]
    for keys in check.keys.values():
        used = {name for key in keys if key is not None for name in key.reads}
        full.insert(-1, VariantKey((), tuple(sorted(used)), plan.exact))
    return tuple(dict.fromkeys((*check.variants, *full)))
