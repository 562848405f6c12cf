"""Measures whether a step's time follows the operations and bytes of its graph, on nano.

Every variant is run in turn with the others: all computed, with and without the exact passes, and
each kind of region reused or left out. A line through two unknowns, seconds per operation and
seconds per byte, is fitted to the medians; the report says how far each variant is from it.

Example:
    python tools/measure/steps.py --runs 15 --out tools/results/steps-nano-v1.json
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from turbo4d.compiler.analysis import Analysis
from turbo4d.compiler.costs import variant_flops
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.lower.eager import EagerEngine, EagerPrologue
from turbo4d.compiler.specialise import Variant, specialise
from turbo4d.compiler.traffic import count_bytes
from turbo4d.runtime.action import BYPASS, REUSE, Action
from turbo4d.runtime.policy import KINDS, reusable
from turbo4d.runtime.variant_key import VariantKey
from turbo4d.tools.measure.nano_call import facts, given, nano_call


def keys_of(analysis: Analysis) -> dict[str, VariantKey]:
    """What is measured, by name."""
    regions = [region.info for region in analysis.regions]
    residual = {region.name for region in regions if region.residual}
    found = {"compute, plain": VariantKey((), (), exact=False)}
    found["compute"] = VariantKey((), (), exact=True)
    for kind in KINDS:
        names = [name for own in reusable(regions, (kind,)).values() for name in own]
        for verb, action in (("reuse", REUSE), ("bypass", BYPASS)):
            if verb == "reuse" or residual.issuperset(names):
                found[f"{verb} every {kind}"] = _key(names, action)
        if len(names) > 1:
            found[f"reuse every second {kind}"] = _key(names[::2], REUSE)
    return found


def _key(names: Sequence[str], action: Action) -> VariantKey:
    return VariantKey(tuple((name, action) for name in sorted(names)), (), exact=True)


def jobs_of(
    variants: Mapping[str, Variant], args: Sequence[Tensor], prologue: Sequence[Tensor]
) -> dict[str, Callable[[], Any]]:
    """One call of each variant; its slots hold zeros."""

    def job(variant: Variant) -> Callable[[], Any]:
        engine = EagerEngine(variant)
        placeholders = list(variant.module.graph.find_nodes(op="placeholder"))
        slots = [
            torch.zeros(node.meta["val"].shape, dtype=node.meta["val"].dtype)
            for node in placeholders[len(placeholders) - len(variant.reads) :]
        ]
        return lambda: engine(args, prologue if variant.key.exact else (), slots)

    return {name: job(variant) for name, variant in variants.items()}


def medians(jobs: Mapping[str, Callable[[], Any]], runs: int) -> dict[str, float]:
    """Seconds of each job, run in turn; each second round in the opposite order."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(runs + 1):
        for name in list(jobs) if turn % 2 else list(jobs)[::-1]:
            begun = time.perf_counter()
            jobs[name]()
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def fit(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Seconds per operation and per byte: least squares of the relative errors."""
    seconds = torch.tensor([row["seconds"] for row in rows], dtype=torch.float64)
    sizes = torch.tensor([[row["flops"], row["bytes"]] for row in rows], dtype=torch.float64)
    scaled = sizes / seconds[:, None]
    solution = torch.linalg.lstsq(scaled, torch.ones(len(rows), 1, dtype=torch.float64)).solution
    return float(solution[0]), float(solution[1])


def main(argv: Sequence[str] | None = None) -> int:
    args = given(argv, __doc__, 15)
    analysis, flat = nano_call()
    variants = {name: specialise(analysis, key) for name, key in keys_of(analysis).items()}
    prologue = EagerPrologue(exact_form(analysis).prologue)(flat)
    seconds = medians(jobs_of(variants, flat, prologue), args.runs)
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "nodes": len(variant.module.graph.nodes),
            "flops": variant_flops(variant),
            "bytes": count_bytes(variant.module.graph),
            "seconds": seconds[name],
        }
        for name, variant in variants.items()
    ]
    per_flop, per_byte = fit(rows)
    for row in rows:
        row["predicted_s"] = per_flop * row["flops"] + per_byte * row["bytes"]
        print(
            f"{row['name']:28} {row['nodes']:5} nodes {row['flops'] / 1e9:7.2f} GFLOP "
            f"{row['bytes'] / 1e6:8.1f} MB {row['seconds'] * 1e3:8.1f} ms "
            f"{row['predicted_s'] / row['seconds'] - 1:+6.1%}"
        )
    found = {
        **facts(args.runs),
        "flop_per_s": 1 / per_flop,
        "byte_per_s": 1 / per_byte,
        "rows": rows,
    }
    print(f"fitted: {1e-9 / per_flop:.0f} GFLOP/s, {1e-9 / per_byte:.1f} GB/s")
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
