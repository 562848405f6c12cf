"""Suite `gpu`: full-size networks, and the same rows small on a machine without a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from turbo4d.tools.bench.gpu_jobs import CeilingsJob, SampleJob, ShareJob
from turbo4d.tools.bench.gpu_kernels import KernelsJob
from turbo4d.tools.bench.gpu_network import Work
from turbo4d.tools.bench.profiled import write_profile
from turbo4d.tools.bench.row import RowSpec
from turbo4d.tools.bench.suite import Job, SuiteOptions

STEPS = 20
# On a CPU the same rows at a small size: what they say is that the script works.
_SMALL_STEPS = 4
_PRESETS = ("exact", "balanced", "fast")
_SHAPES = ("shape:balanced", "shape:fast")
_JOBS: Mapping[str, Callable[[RowSpec, Path], Job]] = {
    "ceilings": CeilingsJob,
    "kernels": KernelsJob,
    "sample": SampleJob,
    "share": ShareJob,
}
# V x F, from what the model was made for until the baseline runs out of memory.
_GEOMETRIES = {"cuda": ((8, 5), (8, 10), (8, 20), (8, 40), (16, 40)), "cpu": ((4, 3), (4, 6))}
_TURBO_GEOMETRIES = {"cuda": ((8, 20), (8, 40)), "cpu": ((4, 6),)}


def rows(options: SuiteOptions) -> list[RowSpec]:
    """The rows: ceilings, then groups that each begin with the network as it is.

    Args:
        options: `more` may hold `dtype`, `steps` and `second` (the second network, "" for none).
    """
    device = _device(options.device)
    model = options.model or ("sv4d" if device == "cuda" else "tiny")
    more = options.more
    dtype = more.get("dtype") or ("bf16" if device == "cuda" else "fp32")
    steps = more.get("steps") or (STEPS if device == "cuda" else _SMALL_STEPS)
    second = more.get("second", "sv4d2" if model == "sv4d" else "")
    runs = options.runs or 2
    base = {"device": device, "dtype": dtype, "steps": steps, "seed": options.seed}
    found = [_row("ceilings", "ceilings", {**base, "model": model}, kind="ceilings", runs=1)]
    found += _samples(model, {**base, "model": model}, runs, steps)
    found += _scaling(model, {**base, "model": model, "alone": True}, device)
    if second:
        settings = {**base, "model": second}
        found += _plans(f"{second}/eager", settings, runs, "eager", ("exact", "balanced"))
    if device == "cuda":  # a second to compile each way to cut each site: after what is compared
        more, group = {**base, "model": model}, f"{model}/kernels"
        found.append(_row(group, "kernels", more, kind="kernels", label="cuts", runs=1))
    found.append(_autotuned(f"{model}/max-autotune", {**base, "model": model}, runs))
    return found


def prepare(spec: RowSpec, folder: Path) -> Job:
    """The job of a row."""
    return _JOBS[spec.settings["kind"]](spec, folder)


def profile(options: SuiteOptions, trace: Path) -> str:
    """Profiles the variants of plan balanced; writes the trace, gives the table."""
    device = _device(options.device)
    work = Work(
        model=options.model or ("sv4d" if device == "cuda" else "nano"),
        device=device,
        dtype=options.more.get("dtype") or ("bf16" if device == "cuda" else "fp32"),
        steps=options.more.get("steps") or STEPS,
        seed=options.seed,
    )
    return write_profile(work, "balanced", trace, runs=options.runs or 3)


def _samples(model: str, settings: Mapping[str, Any], runs: int, steps: int) -> Iterator[RowSpec]:
    shapes = _SHAPES if steps == STEPS else ()
    yield from _plans(f"{model}/eager", settings, runs, "eager", (*_PRESETS, *shapes))
    yield _row(f"{model}/share", "profile", settings, kind="share", plan="exact", runs=1)
    group = f"{model}/inductor"
    yield _row(group, "eager", settings, runs=runs)
    yield _row(group, "inductor", settings, runs=runs)
    yield from [*_plans(group, settings, runs, "inductor", _PRESETS)][1:]
    if settings["device"] == "cuda":
        graphs = {**settings, "cuda_graphs": True}
        yield from _plans(f"{model}/inductor-graphs", graphs, runs, "inductor", _PRESETS)
        yield from _plans(f"{model}/eager-graphs", graphs, runs, "eager", _PRESETS)
        kernels = f"{model}/triton-kernels"
        yield from _plans(kernels, settings, runs, "triton-kernels", ("exact", "balanced"))


def _plans(
    group: str, settings: Mapping[str, Any], runs: int, lowering: str, plans: tuple[str, ...]
) -> Iterator[RowSpec]:
    yield _row(group, "eager", settings, runs=runs)
    label = "cuda graphs" if settings.get("cuda_graphs") else ""
    for plan in plans:
        yield _row(
            group, f"turbo4d:{plan}", settings, plan=plan, lowering=lowering, label=label, runs=runs
        )


def _scaling(model: str, settings: Mapping[str, Any], device: str) -> Iterator[RowSpec]:
    """One step alone, larger and larger; each geometry a group, so that each is a process."""
    for views, frames in _GEOMETRIES[device]:
        sized = {**settings, "views": views, "frames": frames}
        group = f"{model}/V{views} F{frames}"
        yield _row(group, "eager", sized, runs=2, label="one step")
        if (views, frames) in _TURBO_GEOMETRIES[device]:
            yield _row(
                group, "turbo4d:exact", sized, plan="exact", lowering="eager", runs=2,
                label="one step",
            )  # fmt: skip


def _autotuned(group: str, settings: Mapping[str, Any], runs: int) -> RowSpec:
    """On CUDA the mode comes with CUDA graphs."""
    mode = "max-autotune" if settings["device"] == "cuda" else "max-autotune-no-cudagraphs"
    return _row(group, "inductor", {**settings, "mode": mode}, label=mode, runs=runs)


def _row(
    group: str,
    system: str,
    settings: Mapping[str, Any],
    *,
    kind: str = "sample",
    plan: str = "",
    lowering: str = "",
    label: str = "",
    runs: int,
) -> RowSpec:
    return RowSpec(
        suite="gpu", group=group, system=system, plan=plan, lowering=lowering, label=label,
        settings={**settings, "kind": kind}, warmups=0, runs=runs,
    )  # fmt: skip


def _device(asked: str) -> str:
    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"
