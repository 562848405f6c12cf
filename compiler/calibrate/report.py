"""report: how a plan was found and what it measured, as JSON takes it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from turbo4d.compiler.calibrate.error_table import ErrorTable
from turbo4d.compiler.calibrate.frontier import Place
from turbo4d.compiler.calibrate.plan_moves import predicted_db
from turbo4d.compiler.calibrate.rank import spearman
from turbo4d.compiler.calibrate.timed import Timed
from turbo4d.compiler.calibrate.verified import Fidelity
from turbo4d.compiler.machine import Machine
from turbo4d.compiler.predicted_time import plan_seconds, step_seconds
from turbo4d.runtime.device_name import device_name
from turbo4d.runtime.memory_plan import memory_plan
from turbo4d.runtime.plan import Plan

if TYPE_CHECKING:
    from turbo4d.compiler.calibrate.harness import Harness

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Evidence:
    """All that a report is made of.

    Args:
        harness: of the network.
        table: that was measured.
        machine: for whose time the plan was made.
        places: of the frontier.
        chosen: of them.
        plan: of that place.
        known: per plan's name what it measured on the calibration examples.
        held_out: what the chosen plan measured on the others, None without any.
        timed: runs of the chosen plan.
        seconds_spent: per stage.
        device: of the network.
        facts: what else the report says of the call.
    """

    harness: Harness
    table: ErrorTable
    machine: Machine
    places: Sequence[Place]
    chosen: Place
    plan: Plan
    known: Mapping[str, Fidelity]
    held_out: Fidelity | None
    timed: Timed
    seconds_spent: Mapping[str, float]
    device: torch.device
    facts: Mapping[str, Any]


def report_of(found: Evidence) -> dict[str, Any]:
    """The report."""
    harness, plan, letters = found.harness, found.plan, found.chosen.found.letters
    return {
        "schema_version": SCHEMA_VERSION,
        "model": harness.model,
        "device": device_name(found.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "steps": plan.steps,
        "max_cache_bytes": plan.max_cache_bytes,
        "max_variants": plan.max_variants,
        **found.facts,
        "plan": json.loads(plan.to_json()),
        "regions": [
            {
                "name": region.name,
                "kind": region.kind,
                "parent": region.parent,
                "flops": region.flops,
                "slot_bytes": region.slot_bytes,
            }
            for region in harness.regions
        ],
        "moves": [{"name": move.name, "letter": move.letter} for move in found.table.moves],
        "letters": dict(letters),
        "drift": _drift(found.table),
        "gains": _gains(found.table),
        "predictor": _predictor(found.places, found.known),
        "machine": found.machine.as_json(),
        **_figures(found),
        "frontier": [_place(place, found.known) for place in found.places],
        "calibration": _fidelity(found.known[found.chosen.found.name]),
        "held_out": None if found.held_out is None else _fidelity(found.held_out),
        "memory": _memory(plan, harness),
        "pareto": [],
        "psnr_by_view_frame": None,
        "notes": [],
        "seconds_spent": dict(found.seconds_spent),
    }


def _figures(found: Evidence) -> dict[str, Any]:
    harness, plan = found.harness, found.plan
    check = plan.check(harness.regions)
    by_step = [
        sum(
            step_seconds(harness.analysis, check, stream, step, found.machine)
            for stream in plan.streams
        )
        for step in range(plan.steps)
    ]
    ours, plain = found.timed.seconds, found.timed.uncached_seconds
    return {
        "predicted": {
            "seconds": plan_seconds(harness.analysis, check, found.machine),
            "psnr_db": _finite(predicted_db(found.table, plan, harness.regions)),
            "seconds_by_step": by_step,
            "cache_peak_bytes": check.peak_bytes,
        },
        "measured": {
            "seconds": ours,
            "seconds_by_step": None,
            "cache_peak_bytes": found.timed.cache_peak_bytes,
            "uncached_seconds": plain,
            "speedup": plain / ours,
        },
    }


def _place(place: Place, known: Mapping[str, Fidelity]) -> dict[str, Any]:
    fidelity = known.get(place.found.name)
    return {
        "budget_db": _finite(place.budget_db),
        "predicted_seconds": place.found.seconds,
        "proven": place.found.proven,
        "letters": " | ".join(place.found.letters.values()),
        "storage": place.found.storage,
        "psnr_mean_db": None if fidelity is None else fidelity.mean,
        "psnr_worst_db": None if fidelity is None else fidelity.worst,
    }


def _fidelity(fidelity: Fidelity) -> dict[str, Any]:
    return {
        "scenes": list(fidelity.names),
        "psnr_db": list(fidelity.decibels),
        "mean_db": fidelity.mean,
        "worst_db": fidelity.worst,
    }


def _predictor(places: Sequence[Place], known: Mapping[str, Fidelity]) -> dict[str, Any] | None:
    """Predicted beside measured, of the plans of the frontier that were run."""
    points = {
        place.found.name: (-20 * math.log10(place.found.error), known[place.found.name].mean)
        for place in places
        if place.found.name in known and place.found.error > 0
    }
    if len(points) < 3:
        return None
    predicted, measured = zip(*points.values(), strict=True)
    return {
        "plans": len(points),
        "spearman": spearman(predicted, measured),
        "points": [list(point) for point in points.values()],
    }


def _drift(table: ErrorTable) -> dict[str, Any]:
    """How far each group's value at a step lies from that of an earlier one, in the first stream.

    Row t, column s of a matrix: at step s, from what step t held; 0 where t is not before s.
    """
    stream, steps = next(iter(table.streams.items()))
    matrix = {
        group.name: [
            [
                table.change(stream, reader, group.name, (source,)) if source < reader else 0.0
                for reader in steps
            ]
            for source in steps
        ]
        for group in table.groups
        if group.name in table.measured[stream].products
    }
    return {
        "levels": [table.levels[step] for step in steps],
        "curves": {
            name: [0.0, *(rows[at - 1][at] for at in range(1, len(steps)))]
            for name, rows in matrix.items()
        },
        "matrix": matrix,
    }


def _gains(table: ErrorTable) -> dict[str, list[float]]:
    stream = next(iter(table.streams))
    return {
        move: [sum(at) for at in zip(*groups.values(), strict=True)]
        for move, groups in table.measured[stream].gains.items()
        if groups
    }


def _memory(plan: Plan, harness: Harness) -> dict[str, Any]:
    return memory_plan(plan.check(harness.regions)).to_json(plan.max_cache_bytes)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
