"""Measures how long every variant of some plans takes on nano, beside what is predicted of it.

The machine's rates are measured first and again at the end, from operators alone; nothing is fitted
to the steps. The variants are those of the presets, every kind of region reused or left out, blocks
of one kind of attention, and pruned blocks. They run in turn, each as the engine of a session would
be called. Prediction is for this very process: the same threads, the same torch.

Example:
    python tools/measure/cost_model.py --runs 15 --out tools/results/cost-model-nano-v1.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import geometric_mean
from typing import Any

import torch
from torch import Tensor
from turbo4d.compiler.analysis import Analysis
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.lower.eager import EagerEngine, EagerPrologue
from turbo4d.compiler.machine import Machine, measure_machine
from turbo4d.compiler.predicted_time import note_work, prologue_seconds
from turbo4d.compiler.specialise import specialise
from turbo4d.models.schedule import edm_sigmas
from turbo4d.runtime.action import REUSE
from turbo4d.runtime.shipped_plans import preset_plan
from turbo4d.runtime.variant_key import VariantKey
from turbo4d.tools.measure.nano_call import DEVICE, facts, given, nano_call
from turbo4d.tools.measure.prune import groups_of, pruned, slots_of
from turbo4d.tools.measure.steps import keys_of, medians

PRESETS = ("quality", "balanced", "fast")
STEPS = 20
KEEP = 0.5


def variants_of(analysis: Analysis) -> dict[str, VariantKey]:
    """What is measured, by name; a graph that has a name already is left out."""
    named = keys_of(analysis)
    for kind in ("spatial", "camera", "motion"):
        blocks = sorted(
            region.name for region in analysis.regions if region.name.endswith(f".{kind}")
        )
        if blocks:
            reused = tuple((name, REUSE) for name in blocks)
            named[f"reuse every {kind} block"] = VariantKey(reused, (), exact=True)
    for (kind, tokens), regions in groups_of(analysis).items():
        count = f"{len(regions)} {kind} blocks of {tokens} tokens"
        named[f"prune {count} to {KEEP:.0%}"] = pruned(regions, KEEP)
    for preset in PRESETS:
        for key, letters in _of_plan(analysis, preset).items():
            if key not in named.values():
                named[f"{preset}: {letters}"] = key
    return named


def _of_plan(analysis: Analysis, preset: str) -> dict[VariantKey, str]:
    """A plan's variants, and at which steps each runs."""
    infos = [region.info for region in analysis.regions]
    plan = preset_plan(
        preset,
        levels=edm_sigmas(STEPS).tolist(),
        model=analysis.capture.fingerprint,
        geometry=analysis.geometry,
        regions=infos,
    )
    [keys] = plan.check(infos).keys.values()
    steps: dict[VariantKey, list[str]] = {}
    for step, key in enumerate(keys):
        if key is not None:
            steps.setdefault(key, []).append(str(step))
    return {key: f"{key.name}, steps {' '.join(at)}" for key, at in steps.items()}


def jobs_of(
    analysis: Analysis,
    keys: Mapping[str, VariantKey],
    args: Sequence[Tensor],
    held: Sequence[Tensor],
) -> dict[str, Callable[[], Any]]:
    """One call of each variant; its slots hold what a step that computes everything writes."""
    slots = slots_of(analysis, list(keys.values()), args, held)

    def job(key: VariantKey) -> Callable[[], Any]:
        variant = specialise(analysis, key)
        note_work(analysis, variant)
        engine = EagerEngine(variant)
        given = [slots[name] for name in engine.reads]
        return lambda: engine(args, held if key.exact else (), given)

    return {name: job(key) for name, key in keys.items()}


def rows_of(
    analysis: Analysis,
    keys: Mapping[str, VariantKey],
    seconds: Mapping[str, float],
    machine: Machine,
) -> list[dict[str, Any]]:
    """Per variant what it asks, what was predicted and what it took."""
    rows: list[dict[str, Any]] = []
    for name, key in keys.items():
        work = note_work(analysis, specialise(analysis, key))
        rows.append(
            {
                "name": name,
                "variant": key.name,
                "seconds": seconds[name],
                "predicted_s": machine.seconds(work),
                "work": asdict(work),
            }
        )
    return rows


def told(row: Mapping[str, Any]) -> str:
    """A row for the eye."""
    return (
        f"{row['name']:60.60} {row['seconds'] * 1e3:8.2f} ms, predicted "
        f"{row['predicted_s'] * 1e3:8.2f} ms, {row['predicted_s'] / row['seconds'] - 1:+6.1%}"
    )


@torch.no_grad()
def main(argv: Sequence[str] | None = None) -> int:
    args = given(argv, __doc__, 15)
    analysis, flat = nano_call()
    prologue = EagerPrologue(exact_form(analysis).prologue)
    held = prologue(flat)
    keys = variants_of(analysis)
    jobs = jobs_of(analysis, keys, flat, held)
    before = measure_machine(torch.float32, DEVICE)
    seconds = medians({**jobs, "prologue": lambda: prologue(flat)}, args.runs)
    after = measure_machine(torch.float32, DEVICE)
    machine = midway(before, after)
    rows = rows_of(analysis, keys, seconds, machine)
    rows.append(
        {
            "name": "prologue",
            "variant": "prologue",
            "seconds": seconds["prologue"],
            "predicted_s": prologue_seconds(analysis, machine),
            "work": None,
        }
    )
    for row in rows:
        print(told(row))
    print(machine)
    found = {
        **facts(args.runs),
        "machine": machine.as_json(),
        "machine_before": before.as_json(),
        "machine_after": after.as_json(),
        "rows": rows,
    }
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def midway(one: Machine, other: Machine) -> Machine:
    """The geometric mean of two measurements of one machine."""
    rates = {
        name: geometric_mean((value, getattr(other, name)))
        for name, value in one.as_json().items()
        if isinstance(value, float) and value > 0 and getattr(other, name) > 0
    }
    return Machine(**{**one.as_json(), **rates})


if __name__ == "__main__":
    sys.exit(main())
