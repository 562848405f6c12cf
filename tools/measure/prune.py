"""Measures what pruning tokens buys on nano, beside what the cost model predicts of it.

For each level and kind of block, a step that computes everything runs in turn with steps that keep
a share of the tokens of all those blocks. The slots hold what the same step computed, so that the
times are those of a plan's steps; what pruning costs in fidelity is not measured here.

Example:
    python tools/measure/prune.py --runs 9 --out tools/results/prune-nano-v1.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from turbo4d.compiler.analysis import Analysis
from turbo4d.compiler.costs import variant_flops
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.lower.eager import EagerEngine, EagerPrologue
from turbo4d.compiler.machine import Machine, measure_machine
from turbo4d.compiler.prune_gain import gains_of
from turbo4d.compiler.regions import Region
from turbo4d.compiler.specialise import specialise
from turbo4d.runtime.action import Action
from turbo4d.runtime.variant_key import VariantKey
from turbo4d.tools.measure.nano_call import DEVICE, facts, given, nano_call
from turbo4d.tools.measure.steps import medians

KEEPS = (0.75, 0.5, 0.25)
COMPUTE = VariantKey((), (), exact=True)


def groups_of(analysis: Analysis) -> dict[tuple[str, int], list[Region]]:
    """The prunable blocks by kind and tokens of an image, in the order of the graph."""
    found: dict[tuple[str, int], list[Region]] = {}
    for region in analysis.regions:
        if region.pruning is not None:
            kind = region.name.rpartition(".")[2]
            found.setdefault((kind, region.pruning.tokens), []).append(region)
    return found


def pruned(regions: Sequence[Region], keep: float) -> VariantKey:
    """A step that prunes some regions and computes the rest."""
    action = Action("prune", keep=keep)
    slots = {region.pruning.relevance for region in regions if region.pruning is not None}
    names = sorted(region.name for region in regions)
    return VariantKey(tuple((n, action) for n in names), (), True, tuple(sorted(slots)))


def slots_of(
    analysis: Analysis, keys: Sequence[VariantKey], args: Sequence[Tensor], held: Sequence[Tensor]
) -> dict[str, Tensor]:
    """What one step that computes everything writes of all that some others read."""
    names = sorted({name for key in keys for name in key.reads})
    engine = EagerEngine(specialise(analysis, VariantKey((), tuple(names), exact=True)))
    _, written = engine(args, held, ())
    return dict(zip(engine.writes, written, strict=True))


def measure(
    analysis: Analysis, args: Sequence[Tensor], runs: int, machine: Machine
) -> list[dict[str, Any]]:
    """One row per kind, level and share."""
    held = EagerPrologue(exact_form(analysis).prologue)(args)
    rows: list[dict[str, Any]] = []
    for (kind, tokens), regions in groups_of(analysis).items():
        keys = {keep: pruned(regions, keep) for keep in KEEPS}
        slots = slots_of(analysis, list(keys.values()), args, held)
        variants = {"compute": specialise(analysis, COMPUTE)}
        variants |= {str(keep): specialise(analysis, key) for keep, key in keys.items()}
        engines = {name: EagerEngine(variant) for name, variant in variants.items()}

        def job(engine: EagerEngine, slots: Mapping[str, Tensor] = slots) -> Callable[[], Any]:
            given = [slots[name] for name in engine.reads]
            return lambda: engine(args, held, given)

        seconds = medians({name: job(engine) for name, engine in engines.items()}, runs)
        for keep, key in keys.items():
            gains = gains_of(analysis, key)
            rows.append(
                {
                    "kind": kind,
                    "tokens": tokens,
                    "blocks": len(regions),
                    "keep": keep,
                    "kept": gains[0].kept,
                    "compute_s": seconds["compute"],
                    "pruned_s": seconds[str(keep)],
                    "saved_s": seconds["compute"] - seconds[str(keep)],
                    "predicted_s": sum(gain.seconds_saved(machine) for gain in gains),
                    "flops": variant_flops(variants[str(keep)]),
                    "flops_saved": sum(gain.flops_saved for gain in gains),
                    "bytes_saved": sum(gain.bytes_saved for gain in gains),
                    "bytes_added": sum(gain.bytes_added for gain in gains),
                }
            )
            print(told(rows[-1]), flush=True)
    return rows


def told(row: Mapping[str, Any]) -> str:
    """A row for the eye."""
    wrong = " (the other way round)" if row["saved_s"] * row["predicted_s"] < 0 else ""
    return (
        f"{row['blocks']} x {row['kind']:8} {row['kept']:4} of {row['tokens']:4} tokens: step of "
        f"{row['compute_s'] * 1e3:6.1f} ms, saved {row['saved_s'] * 1e3:+6.1f}, predicted "
        f"{row['predicted_s'] * 1e3:+6.1f} ms{wrong}; saves {row['flops_saved'] / 1e9:.2f} GFLOP, "
        f"{row['bytes_saved'] / 1e6:.0f} MB and adds {row['bytes_added'] / 1e6:.0f} MB"
    )


@torch.no_grad()
def main(argv: Sequence[str] | None = None) -> int:
    args = given(argv, __doc__, 9)
    analysis, flat = nano_call()
    machine = measure_machine(torch.float32, DEVICE)
    rows = measure(analysis, flat, args.runs, machine)
    found = {
        **facts(args.runs),
        "predicted_for": machine.name,
        "rows": rows,
    }
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
