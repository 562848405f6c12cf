"""Measures the foreign models: what is found in them, whether it is exact, what a preset saves.

Each is compiled with nothing but its geometry, in a tiny configuration with random weights: sites
and regions by kind, the output under plan none beside the plain module's, and twenty Euler steps
under one preset beside twenty uncached ones, in turn. Writes the rows, and the table in README.md.

Example:
    python tools/measure/foreign.py --runs 7 --out tools/results/foreign.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from turbo4d.compiler.explain import Explanation
from turbo4d.tools import readme_figures
from turbo4d.tools.environment import commit, device_name
from turbo4d.tools.foreign_models import FACTORIES, Foreign, build
from turbo4d.tools.foreign_models.loop import TIMESTEPS, sample_plain, sample_turbo
from turbo4d.tools.timing import alternate

import turbo4d


def measure(foreign: Foreign, preset: str, runs: int, say: Callable[[str], None]) -> dict[str, Any]:
    """One model's row."""
    say(f"{foreign.name}: analysing")
    geometry = dict(foreign.geometry)
    info = turbo4d.explain(
        foreign.module, (), foreign.inputs, preset, geometry, TIMESTEPS, "timestep"
    )
    say(f"{foreign.name}: compiling")
    options = {"plan": preset, "geometry": geometry, "lowering": "eager"}
    fast = torch.compile(foreign.module, backend="turbo4d", options=options)
    wanted = sample_plain(foreign)
    errors = {
        plan: _error(sample_turbo(foreign, fast, plan)[0], wanted) for plan in ("none", "exact")
    }
    _, session = sample_turbo(foreign, fast, preset)
    report = session.report()
    jobs = {
        "uncached": lambda: sample_plain(foreign),
        preset: lambda: sample_turbo(foreign, fast, preset)[0],
    }
    found = alternate(jobs, runs, torch.device("cpu"), lambda text: say(f"{foreign.name}: {text}"))
    plain, turbo = found["uncached"], found[preset]
    return {
        "model": foreign.name,
        "factory": foreign.factory,
        "params": info.params,
        **_findings(info),
        "identity_error": errors["none"],
        "exact_error": errors["exact"],
        "calls_by_variant": report["calls_by_variant"],
        "events": report["events"],
        "flops_share": info.cost.total / (len(TIMESTEPS) * info.flops_per_call),
        "cache_peak_bytes": report["cache_peak_bytes"],
        "uncached_s": plain.timing.median,
        "uncached_spread_s": plain.timing.spread,
        "turbo_s": turbo.timing.median,
        "turbo_spread_s": turbo.timing.spread,
        "speedup": plain.timing.median / turbo.timing.median,
        "latent_error": _error(turbo.result, plain.result),
    }


def _findings(info: Explanation) -> dict[str, Any]:
    unclassified = [
        {"name": site.name, "reason": site.note}
        for site in info.sites
        if site.kind == "unclassified"
    ]
    return {
        "sites": Counter(site.kind for site in info.sites if site.kind != "unclassified"),
        "unclassified": unclassified,
        "regions": Counter(region.kind for region in info.regions),
    }


def _error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Of the whole tensor, relative; 0 where every bit is equal."""
    if torch.equal(found, wanted):
        return 0.0
    return float((found - wanted).norm() / wanted.norm())


def measure_all(
    names: Sequence[str], preset: str, runs: int, say: Callable[[str], None]
) -> Mapping[str, Any]:
    """The report: a row per model, and what it was measured on."""
    device = torch.device("cpu")
    rows: list[dict[str, Any]] = []
    for name in names:
        rows.append(measure(build(name), preset, runs, say))
        torch.compiler.reset()
    return {
        "preset": preset,
        "steps": len(TIMESTEPS),
        "runs": runs,
        "dtype": "fp32",
        "lowering": "eager",
        "weights": "random",
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "diffusers": metadata.version("diffusers"),
        "commit": commit(),
        "rows": rows,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=tuple(FACTORIES), default=tuple(FACTORIES))
    parser.add_argument("--plan", choices=("quality", "balanced", "fast"), default="balanced")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    report = measure_all(
        args.models,
        args.plan,
        args.runs,
        lambda text: print(text, file=sys.stderr, flush=True),
    )
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    if args.out.resolve().parent == readme_figures.RESULTS:
        readme_figures.main([])
    for row in report["rows"]:
        print(
            f"{row['model']:34} {row['speedup']:5.2f}x  operations {row['flops_share']:.0%}  "
            f"identity {row['identity_error']:.0e}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
