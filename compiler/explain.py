"""explain: what turbo4d sees in a model and what a plan would do with it, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

from torch import nn
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.costs import flops_by_kind, folded_sites
from turbo4d.compiler.explain_prune import Pruned, pruned_of
from turbo4d.compiler.explain_text import text_of
from turbo4d.compiler.machine import Machine, gpu, this_machine
from turbo4d.compiler.plan_cost import PlanCost, plan_cost
from turbo4d.compiler.predicted_time import PlanTimes, plan_times
from turbo4d.compiler.regions import Region
from turbo4d.compiler.sites import Site
from turbo4d.runtime.errors import PlanError
from turbo4d.runtime.levels import LevelUnit
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.plan_check import PlanCheck
from turbo4d.runtime.plan_source import read_plan
from turbo4d.runtime.plan_text import Line, plan_lines
from turbo4d.runtime.shipped_plans import preset_plan


@dataclass(frozen=True)
class Explanation:
    """The findings about one model and one plan.

    Args:
        model: the module's class.
        params: how many numbers its parameters hold.
        analysis: of its graph.
        plan: resolved.
        schedule: what the plan's levels are, in words.
        left_out: one sentence for each cell that the plan as given had and this one has not.
        on: whose times are predicted; None for the machine this runs on, measured when asked.
        device: on which the model lies, for None.
    """

    model: str
    params: int
    analysis: Analysis
    plan: Plan
    schedule: str
    left_out: tuple[str, ...] = ()
    on: Machine | None = None
    device: str = "cpu"

    @property
    def machine(self) -> Machine:
        """Whose times are predicted."""
        sample = self.analysis.capture.table[self.analysis.roles.sample]
        return self.on or this_machine(sample.dtype, self.device)

    @cached_property
    def times(self) -> PlanTimes:
        """What the plan is predicted to take."""
        return plan_times(self.analysis, self.check, self.machine)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every attention on the sample's path."""
        return self.analysis.sites

    @property
    def unclassified(self) -> dict[str, str]:
        """Why, by name of the site or of the node that may be an attention."""
        sites = {site.name: site.note for site in self.sites if site.kind == "unclassified"}
        return {**sites, **{one.node.name: one.reason for one in self.analysis.unread}}

    @property
    def regions(self) -> tuple[Region, ...]:
        """Every region that a plan may name."""
        return self.analysis.regions

    @property
    def flops_per_call(self) -> int:
        """Operations of one call that computes everything."""
        return sum(self.analysis.flops.values())

    @cached_property
    def check(self) -> PlanCheck:
        """The plan's proof."""
        return self.plan.check([region.info for region in self.regions])

    @property
    def _slot_names(self) -> list[str]:
        """Of each slot that a plan may read: of regions, and of what says which tokens matter."""
        known = [region.pruning for region in self.regions if region.pruning is not None]
        names = [region.name for region in self.regions] + [how.relevance for how in known]
        return [*dict.fromkeys(names)]

    @cached_property
    def pruned(self) -> tuple[Pruned, ...]:
        """What the plan's pruned regions save and add."""
        return pruned_of(self.analysis, self.check, self.machine)

    @cached_property
    def cost(self) -> PlanCost:
        """What the plan's steps execute."""
        return plan_cost(self.analysis, self.check)

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines of the plan's picture."""
        return plan_lines(self.plan, [region.info for region in self.regions])

    def to_json(self) -> dict[str, Any]:
        """The findings as plain values, in the order of reading."""
        cost = self.cost
        return {
            "model": self.model,
            "params": self.params,
            "geometry": self.analysis.geometry.as_dict(),
            "sites": [_site(site) for site in self.sites],
            "regions": [_region(region) for region in self.regions],
            "folded_sites": len(folded_sites(self.analysis)) if self.plan.exact else 0,
            "flops_per_call": self.flops_per_call,
            "flops_by_kind": flops_by_kind(self.analysis),
            "plan": {
                "name": self.plan.name,
                "origin": self.plan.origin,
                "steps": self.plan.steps,
                "variants": len(self.check.variants),
                "flops_by_step": list(cost.by_step),
                "cache_peak_bytes": self.check.peak_bytes,
                "predicted": self.times.as_json(),
                "slots": [
                    {"region": name, "values": depth, "bytes": depth * self.check.slot_bytes[name]}
                    for name in self._slot_names
                    if (depth := self.check.depth.get(name))
                ],
                "pruned": [one.as_json() for one in self.pruned],
                "left_out": list(self.left_out),
            },
            "unclassified": [
                {"name": name, "reason": reason} for name, reason in self.unclassified.items()
            ],
            "aside": [{"name": one.node, "over": one.over} for one in self.analysis.aside],
            "prologue": {
                "flops": cost.prologue_flops,
                "bytes": cost.prologue_bytes,
                "values": cost.prologue_values,
            },
            "dead_weights": [
                {"name": name, "bytes": size} for name, size in cost.dead_weights.items()
            ],
        }

    def __str__(self) -> str:
        """The findings for a reader at a terminal."""
        return text_of(self)


def explain(
    model: nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    plan: str | PathLike[str] | Plan = "balanced",
    geometry: Mapping[str, int | str] | None = None,
    levels: Sequence[float] | None = None,
    level_unit: LevelUnit | None = None,
    machine: Machine | str | None = None,
) -> Explanation:
    """Say what turbo4d sees in a model, and what a plan would do; runs nothing of the model.

    Args:
        model: a denoiser in eval mode, on any device; on "meta" it needs no memory.
        args: positional arguments of one call.
        kwargs: keyword arguments of one call.
        plan: a preset, a plan of one's own, or a plan's file.
        geometry: any of batch, views, frames, height, width, and order; see `analyse`.
        levels: noise level of each step, for a preset; default: 20 steps of SV4D's schedule.
        level_unit: of the levels; None infers it.
        machine: whose times are predicted, by name a GPU of `machine.GPUS`; None for the machine
            this runs on, measured when a time is asked for.

    Raises:
        CaptureError: where the model is no pure graph, or has no attention.
        GeometryError: where views and frames cannot be told.
        OptionError: where the plan is neither a preset nor a file, or the machine is unknown.
        PlanError: where the plan does not fit the model.
    """
    analysis = analyse(capture_export(model, args, kwargs), geometry)
    given = read_plan(plan)
    left_out: tuple[str, ...] = ()
    if isinstance(given, Plan):
        _check_fit(given, analysis)
        resolved, left_out = given.settled([region.info for region in analysis.regions])
        schedule = "its own levels"
    else:
        resolved = preset_plan(
            given,
            levels=levels or edm_levels(),
            level_unit=level_unit,
            model=analysis.capture.fingerprint,
            geometry=analysis.geometry,
            regions=[region.info for region in analysis.regions],
        )
        schedule = "levels as given" if levels else "SV4D's levels, sigma 700 to 0.002"
    params = sum(parameter.numel() for parameter in model.parameters())
    if isinstance(machine, str):
        machine = gpu(machine, analysis.capture.table[analysis.roles.sample].dtype)
    device = next((str(p.device) for p in model.parameters() if p.is_cuda), "cpu")
    return Explanation(
        type(model).__name__, params, analysis, resolved, schedule, left_out, machine, device
    )


def _check_fit(plan: Plan, analysis: Analysis) -> None:
    for what, wanted, got in (
        ("model", plan.model, analysis.capture.fingerprint),
        ("geometry", plan.geometry, analysis.geometry),
    ):
        if wanted != got:
            raise PlanError(
                f"plan {plan.name!r} is for {what} {wanted}; this one is {got}. "
                f"Make a plan for this {what}."
            )


def edm_levels(
    steps: int = 20, highest: float = 700.0, lowest: float = 0.002, rho: float = 7.0
) -> list[float]:
    """Noise levels sigma spaced evenly in sigma ** (1 / rho), as SV4D samples with.

    Source: Karras et al. 2022, equation 5.
    """
    first, last = highest ** (1 / rho), lowest ** (1 / rho)
    return [(first + step / (steps - 1) * (last - first)) ** rho for step in range(steps)]


def _site(site: Site) -> dict[str, Any]:
    fields = ("name", "kind", "region", "query_tokens", "key_tokens", "heads", "groups")
    return {field: getattr(site, field) for field in fields}


def _region(region: Region) -> dict[str, Any]:
    fields = ("name", "kind", "parent", "flops", "slot_bytes")
    return {field: getattr(region, field) for field in fields}
