"""From what a user called a plan, a preset's name, a file or a plan, to a proven one."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from .errors import OptionError, PlanError
from .levels import LevelUnit, infer_unit, to_sigma, without_end
from .plan import Plan
from .plan_check import PlanCheck
from .policy import PRESETS
from .prebuilt import Prebuilt
from .shipped_plans import preset_plan
from .signature import Signature

# Levels of one schedule computed in two precisions differ by less than this.
_SAME_LEVEL = 1e-3
_NEEDS_LEVELS = tuple(name for name in PRESETS if name not in ("none", "exact"))


@dataclass(frozen=True)
class Schedule:
    """The noise levels that a session or an option gave.

    Args:
        levels: one per step, falling.
        unit: of the levels.
    """

    levels: tuple[float, ...]
    unit: LevelUnit

    @staticmethod
    def of(
        levels: Sequence[float] | Tensor,
        unit: LevelUnit | None,
        steps: int | None = None,
        plan: str | Plan | None = None,
    ) -> Schedule:
        """The schedule of a list of levels, with or without its closing zero.

        Args:
            levels: one per step, falling.
            unit: of the levels; None for the plan's where they are the plan's, else to infer it.
            steps: how many there are, None to tell from the closing zero.
            plan: that the levels are for, where there is one.
        """
        fed = without_end(levels, steps, unit)
        if unit is None and isinstance(plan, Plan) and _alike(plan.levels, fed):
            return Schedule(fed, plan.level_unit)
        return Schedule(fed, unit or infer_unit(fed))


def read_plan(given: str | os.PathLike[str] | Plan) -> str | Plan:
    """A preset's name as it is, a file's plan, a plan as it is.

    Raises:
        OptionError: where the text is neither a preset nor a file.
        PlanError: where the file holds no plan.
    """
    if isinstance(given, Plan):
        return given
    if isinstance(given, str) and given in PRESETS:
        return given
    if not Path(given).is_file():
        raise OptionError(
            f"plan: {os.fspath(given)!r} is no preset ({', '.join(sorted(PRESETS))}) and no file."
        )
    return Plan.load(given)


@dataclass
class PlanSource:
    """Gives a proven plan for the streams that were asked for.

    A preset knows no streams: each that turns up is planned then, at the steps declared for it.

    Args:
        given: a preset's name or a plan.
        signature: of the denoiser that the plan is for.
        schedule: the levels of the run, None where only the plan knows them.
        use: kinds of regions that a preset may reuse.
        max_cache_bytes: bound on all slots together, besides the plan's own.
        declared: per stream the steps at which it runs; None where nothing was declared.
        offload: whether slots wait on the host, so that bounds are on what lies on the device.
        adaptive: whether the run may leave the plan, so that a preset must be one without weights.
        prebuilt: the engines that there are, None where any can be built.
        digest: tells the digest of the network's weights, None where they are not known.
    """

    given: str | Plan
    signature: Signature
    schedule: Schedule | None = None
    use: Collection[str] | None = None
    max_cache_bytes: int | None = None
    declared: Mapping[str, Collection[int]] | None = None
    offload: bool = False
    adaptive: bool = False
    prebuilt: Prebuilt | None = None
    digest: Callable[[], str] | None = None
    _streams: dict[str, Collection[int] | None] = field(
        default_factory=dict[str, "Collection[int] | None"], init=False
    )

    def open(self, stream: str) -> tuple[Plan, PlanCheck]:
        """The plan with this stream in it, and its proof.

        Raises:
            PlanError: where the plan fails its check, is for another model, geometry or schedule,
                lacks the stream, is a preset without levels, or needs an engine that is not there.
        """
        if isinstance(self.given, Plan):
            plan = self._bounded(self.given)
            plan.rows(stream)
            self._agree(plan)
        else:
            self._streams[stream] = None if self.declared is None else self.declared.get(stream)
            plan = self._resolve(self.given)
        proof = plan.check(self.signature.regions, offload=self.offload)
        if self.prebuilt is not None:
            self.prebuilt.check(plan, proof.variants)
        return plan, proof

    def _resolve(self, preset: str) -> Plan:
        if self.schedule is None:
            raise PlanError(
                f"plan {preset!r}: a preset follows the noise levels and none are known; "
                "give levels=[...], one per step."
            )
        return preset_plan(
            preset,
            levels=self.schedule.levels,
            level_unit=self.schedule.unit,
            model=self.signature.model,
            geometry=self.signature.geometry,
            regions=self.signature.regions,
            streams=self._streams,
            use=self.use,
            max_cache_bytes=self.max_cache_bytes,
            weights=not self.adaptive,
            digest=self.digest,
        )

    def _bounded(self, plan: Plan) -> Plan:
        bounds = [b for b in (plan.max_cache_bytes, self.max_cache_bytes) if b is not None]
        return dataclasses.replace(plan, max_cache_bytes=min(bounds, default=None))

    def _agree(self, plan: Plan) -> None:
        if plan.model != self.signature.model:
            raise PlanError(
                f"plan {plan.name!r} is for model {plan.model!r}; this one is "
                f"{self.signature.model!r}. Make a plan for this model."
            )
        if plan.geometry != self.signature.geometry:
            raise PlanError(
                f"plan {plan.name!r} is for geometry {plan.geometry}; this call has "
                f"{self.signature.geometry}. Make a plan for this geometry."
            )
        if self.schedule is not None:
            _agree_on_levels(plan, self.schedule)


def _alike(levels: Sequence[float], others: Sequence[float]) -> bool:
    pairs = zip(levels, others, strict=False)
    return len(levels) == len(others) and all(
        math.isclose(*pair, rel_tol=_SAME_LEVEL) for pair in pairs
    )


def _agree_on_levels(plan: Plan, schedule: Schedule) -> None:
    if len(schedule.levels) != plan.steps:
        raise PlanError(
            f"plan {plan.name!r} is for {plan.steps} steps; this run has {len(schedule.levels)}. "
            "Make a plan for this schedule."
        )
    for step, (wanted, got) in enumerate(zip(plan.levels, schedule.levels, strict=True)):
        sigmas = to_sigma(wanted, plan.level_unit), to_sigma(got, schedule.unit)
        if not math.isclose(*sigmas, rel_tol=_SAME_LEVEL):
            raise PlanError(
                f"plan {plan.name!r} is for {plan.level_unit} {wanted:g} at step {step}; this run "
                f"has {schedule.unit} {got:g}. Make a plan for this schedule."
            )
