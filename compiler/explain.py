"""explain: what turbo4d sees in a model and what a plan would do with it, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

from torch import nn
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.costs import flops_by_kind, folded_sites
from turbo4d.compiler.regions import Region
from turbo4d.compiler.sites import Site
from turbo4d.runtime.errors import PlanError
from turbo4d.runtime.levels import LevelUnit
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.plan_source import read_plan
from turbo4d.runtime.plan_text import picture
from turbo4d.runtime.policy import resolve


@dataclass(frozen=True)
class Explanation:
    """The findings about one model and one plan.

    Args:
        model: the module's class.
        params: how many numbers its parameters hold.
        analysis: of its graph.
        plan: resolved.
        schedule: what the plan's levels are, in words.
    """

    model: str
    params: int
    analysis: Analysis
    plan: Plan
    schedule: str

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every attention on the sample's path."""
        return self.analysis.sites

    @property
    def regions(self) -> tuple[Region, ...]:
        """Every region that a plan may name."""
        return self.analysis.regions

    @property
    def flops_per_call(self) -> int:
        """Operations of one call that computes everything."""
        return sum(self.analysis.flops.values())

    def to_json(self) -> dict[str, Any]:
        """The findings as plain values, in the order of reading."""
        check = self.plan.check([region.info for region in self.regions])
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
                "steps": self.plan.steps,
                "variants": len(check.variants),
                "flops_by_step": self._flops_by_step(),
                "cache_peak_bytes": check.peak_bytes,
            },
            "unclassified": [
                {"name": site.name, "reason": site.note}
                for site in self.sites
                if site.kind == "unclassified"
            ],
        }

    def _flops_by_step(self) -> list[int]:
        """Of the first stream; a step that it does not run has 0. Exact passes save more."""
        check = self.plan.check([region.info for region in self.regions])
        stream = next(iter(self.plan.streams))
        steps = zip(check.keys[stream], check.skipped_flops[stream], strict=True)
        return [0 if key is None else self.flops_per_call - skipped for key, skipped in steps]

    def __str__(self) -> str:
        """The findings for a reader at a terminal."""
        found = self.to_json()
        plan = found["plan"]
        whole = plan["steps"] * self.flops_per_call
        parts = [
            f"{self.model}: {self.params:,} parameters; {self.analysis.geometry}",
            f"one call: {_tera(self.flops_per_call)}",
            _table(
                [
                    (kind, _tera(flops), f"{flops / self.flops_per_call:.1%}")
                    for kind, flops in found["flops_by_kind"].items()
                ]
            ),
            f"sites: {_counted(site.kind for site in self.sites)}; "
            f"{found['folded_sites']} with one key fold exactly",
            _table([_site_row(site) for site in self.sites if site.kind != "cross"]),
            f"regions: {_counted(region.kind for region in self.regions)}",
            _table([_region_row(region) for region in self.regions if region.kind != "block"]),
            f"plan {plan['name']!r} over {plan['steps']} steps ({self.schedule}): "
            f"{plan['variants']} variants, slots of up to {_bytes(plan['cache_peak_bytes'])}, "
            f"{sum(plan['flops_by_step']) / whole:.1%} of the operations",
            picture(self.plan, [region.info for region in self.regions]),
        ]
        parts += [f"unclassified: {one['name']}: {one['reason']}" for one in found["unclassified"]]
        return "\n\n".join(parts)


def explain(
    model: nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    plan: str | PathLike[str] | Plan = "balanced",
    geometry: Mapping[str, int | str] | None = None,
    levels: Sequence[float] | None = None,
    level_unit: LevelUnit | None = None,
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

    Raises:
        CaptureError: where the model is no pure graph, or has no attention.
        GeometryError: where views and frames cannot be told.
        OptionError: where the plan is neither a preset nor a file.
        PlanError: where the plan does not fit the model.
    """
    analysis = analyse(capture_export(model, args, kwargs), geometry)
    given = read_plan(plan)
    if isinstance(given, Plan):
        _check_fit(given, analysis)
        resolved, schedule = given, "its own levels"
    else:
        resolved = resolve(
            given,
            levels=levels or edm_levels(),
            level_unit=level_unit,
            model=analysis.capture.fingerprint,
            geometry=analysis.geometry,
            regions=[region.info for region in analysis.regions],
        )
        schedule = "levels as given" if levels else "SV4D's levels, sigma 700 to 0.002"
    params = sum(parameter.numel() for parameter in model.parameters())
    return Explanation(type(model).__name__, params, analysis, resolved, schedule)


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


def _site_row(site: Site) -> tuple[str, ...]:
    tokens = f"{site.query_tokens} x {site.key_tokens}"
    return site.name, site.kind, tokens, f"{site.heads} heads", f"{site.groups} groups", site.note


def _region_row(region: Region) -> tuple[str, ...]:
    return region.name, region.kind, _tera(region.flops), _bytes(region.slot_bytes)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  "
        + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _counted(kinds: Any) -> str:
    counts: dict[str, int] = {}
    for kind in kinds:
        counts[kind] = counts.get(kind, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def _tera(flops: int) -> str:
    return f"{flops / 1e12:.3g} TFLOP" if flops >= 1e9 else f"{flops / 1e6:.3g} MFLOP"


def _bytes(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"
