"""Suite `cpu`: nano beside torch's own compiler, the policies of others, and fewer steps.

20 steps and 50, for which nano has fitted plans; and what turbo4d itself costs at each step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from turbo4d.tools.bench import overhead_rows, plan_rows, policy_rows
from turbo4d.tools.bench.row import RowResult, RowSpec
from turbo4d.tools.bench.sampled_job import SampledJob
from turbo4d.tools.bench.suite import Job, SuiteOptions
from turbo4d.tools.control import fitting_steps
from turbo4d.tools.load_model import LoadedModel, load_model
from turbo4d.tools.sampling import SOLVERS, Turbo, lowered, sample_plain

# What glibc's malloc gives back to the system after each step is faulted in anew at the next.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}
# Torch's own compiler, as its users set it.
_RIVALS: Mapping[str, Mapping[str, Any]] = {
    "": {},
    "max-autotune": {"mode": "max-autotune-no-cudagraphs"},
    "freezing": {"options": {"freezing": True}},
}
_PRESETS = ("none", "exact", "quality", "balanced", "fast")
_APPROXIMATE = ("quality", "balanced", "fast")
# Lowering -> the presets under it; the whole suite shall take no longer than half an hour.
_UNDER: Mapping[str, Sequence[str]] = {
    "eager": _PRESETS,
    "inductor": _PRESETS[1:],
    "native": _PRESETS,
    "onnxruntime": ("exact", "balanced", "fast"),
}
# Steps -> lowering -> the system that computes every step under it, and the presets that have
# fewer steps beside them.
_CONTROLLED: Mapping[int, Mapping[str, tuple[str, Sequence[str]]]] = {
    20: {
        "eager": ("eager", _APPROXIMATE),
        "inductor": ("inductor", ("balanced",)),
        "native": ("turbo4d:none", ("balanced",)),
    },
    50: {"eager": ("eager", _APPROXIMATE)},
}
_RUNS = {20: 3, 50: 2}


def rows(options: SuiteOptions) -> list[RowSpec]:
    """The rows; with `quick` those of 20 steps that tell most."""
    found = _twenty(options)
    if not options.quick:
        found += _fifty(options)
    return [*found, *overhead_rows.rows(options)]


def _twenty(options: SuiteOptions) -> list[RowSpec]:
    row = partial(_row, options, 20)
    if options.quick:
        turbo = [("exact", "eager"), ("exact", "native"), ("balanced", "eager"), ("fast", "eager")]
        rivals = [row("inductor", compile={})]
    else:
        turbo = [(preset, lowering) for lowering, under in _UNDER.items() for preset in under]
        rivals = [
            row("eager", label="malloc", environment=MALLOC),
            *(row("inductor", label=label, compile=given) for label, given in _RIVALS.items()),
            row("inductor", label="malloc", environment=MALLOC, compile={}),
        ]
    return [
        row("eager"),
        *rivals,
        *(_turbo(row, preset, lowering) for preset, lowering in turbo),
        *plan_rows.rows(row, quick=options.quick, model=options.model or "nano"),
        *policy_rows.rows(row, quick=options.quick, model=options.model or "nano"),
    ]


def _fifty(options: SuiteOptions) -> list[RowSpec]:
    row = partial(_row, options, 50)
    return [
        row("eager"),
        row("inductor", compile={}),
        *(_turbo(row, preset, "eager") for preset in ("exact", *_APPROXIMATE)),
        *(_turbo(row, preset, "native") for preset in ("exact", *_APPROXIMATE)),
    ]


def _row(
    options: SuiteOptions,
    steps: int,
    system: str,
    *,
    plan: str = "",
    lowering: str = "",
    label: str = "",
    environment: Mapping[str, str] | None = None,
    **settings: Any,
) -> RowSpec:
    return RowSpec(
        suite="cpu", group=f"{steps}-steps", system=system, plan=plan, lowering=lowering,
        label=label,
        settings={
            "model": options.model or "nano", "steps": steps, "scenes": options.scenes,
            "seed": options.seed, "device": options.device, **settings,
        },
        environment=dict(environment or {}),
        warmups=0,  # the first run is a whole sample
        runs=options.runs or (1 if options.quick else _RUNS[steps]),
    )  # fmt: skip


def _turbo(row: Callable[..., RowSpec], preset: str, lowering: str) -> RowSpec:
    return row(f"turbo4d:{preset}", plan=preset, lowering=lowering)


def follow_ups(results: Sequence[RowResult], options: SuiteOptions) -> list[RowSpec]:
    """Fewer steps, as many as fit the latency of each approximate preset, by two solvers."""
    found: dict[str, RowSpec] = {}
    for result in results:
        spec, steps = result.spec, result.spec.settings.get("steps", 0)
        system, presets = _CONTROLLED.get(steps, {}).get(spec.lowering, ("", ()))
        whole_s = _uncached_s(results, result, system)
        if spec.plan not in presets or result.latency_s is None or whole_s is None:
            continue
        count = fitting_steps(result.latency_s, whole_s, steps)
        for solver in SOLVERS:
            row = _row(
                options, steps, f"steps:{count}:{solver}", lowering=spec.lowering, count=count,
                solver=solver,
            )  # fmt: skip
            found.setdefault(row.name, row)
    asked = {result.spec.name for result in results}
    return [row for name, row in found.items() if name not in asked]


def _uncached_s(results: Sequence[RowResult], row: RowResult, system: str) -> float | None:
    """Seconds of the uncached run under a row's lowering."""
    if system == "eager":
        return RowResult(row.spec, seconds=row.baseline).latency_s
    lowering = row.spec.lowering if system.startswith("turbo4d:") else ""
    wanted = (system, lowering, "")
    return next(
        (
            each.latency_s
            for each in results
            if (each.spec.system, each.spec.lowering, each.spec.label) == wanted
        ),
        None,
    )


def profile(options: SuiteOptions, trace: Path) -> str:
    """Where the time of each variant of plan balanced goes; writes the trace, gives the table."""
    from turbo4d.tools.bench.gpu_network import Work
    from turbo4d.tools.bench.profiled import write_profile

    work = Work(model=options.model or "nano", device="cpu", dtype="fp32", steps=20)
    return write_profile(work, "balanced", trace, runs=options.runs or 5)


def prepare(spec: RowSpec, folder: Path) -> Job:
    """The job of a row."""
    if spec.group == overhead_rows.GROUP:
        return overhead_rows.OverheadJob(spec)
    device = torch.device("cpu")
    model = load_model(spec.settings["model"], None, torch.float32, device)
    if spec.system.startswith("policy:"):
        return policy_rows.prepare(spec, model, folder)
    if spec.system.startswith("turbo4d:"):
        return _prepare_turbo(spec, model, folder)
    network = _uncached(spec, model)
    count = spec.settings.get("count", spec.settings["steps"])
    solver = spec.settings.get("solver", "euler")
    sampler = partial(sample_plain, network, steps=count, solver=solver)
    return SampledJob(model, sampler, spec, folder)


def _uncached(spec: RowSpec, model: LoadedModel) -> LoadedModel:
    """The model as a row without turbo4d runs it."""
    if spec.system != "inductor":
        return lowered(model, spec.lowering or "eager")
    import dataclasses

    compiled: Any = torch.compile(
        model.network, fullgraph=True, dynamic=False, **spec.settings["compile"]
    )
    return dataclasses.replace(model, network=compiled)


def _prepare_turbo(spec: RowSpec, model: LoadedModel, folder: Path) -> SampledJob:
    steps = spec.settings["steps"]
    plan = plan_rows.plan_of(spec)
    turbo = Turbo(model, steps, {"plan": plan, "lowering": spec.lowering})

    def says() -> dict[str, Any]:
        report = dict(turbo.report or {})
        kept = ("calls_by_variant", "variants", "cache_peak_bytes", "weights_bytes", "events")
        origin = turbo.plan.origin if turbo.plan is not None else None
        return {name: report.get(name) for name in kept} | {"plan_origin": origin}

    return SampledJob(model, turbo.sample, spec, folder, says)
