"""Measures adaptive runs beside static plans, on held-out scenes that stand still, move or hurry.

The static side is the preset's own policy with its one knob turned: all thresholds times a factor;
and the adaptive planner with what it measures ignored, so that every scene gets the same plan. The
adaptive side is the preset's plan with its one knob turned: the ceiling of the expected error.
Each scene is sampled by all of them; an adaptive run is compared with what a static plan costs that
reaches its PSNR, interpolated between the static plans.

Example:
    python tools/measure/adaptive.py --scenes 0-11 --out tools/results/adaptive-nano-v1.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from turbo4d.models.metrics import psnr
from turbo4d.models.scenes import render_scene
from turbo4d.models.schedule import edm_sigmas
from turbo4d.runtime.adaptive import Bounds
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.policy import THRESHOLDS, reusable, rows_of
from turbo4d.runtime.region_info import RegionKind
from turbo4d.runtime.rungs import rungs_of
from turbo4d.runtime.variant_key import VariantKey
from turbo4d.tools.asset import decode, prepare
from turbo4d.tools.fidelity import object_mask
from turbo4d.tools.load_model import LoadedModel, load_model
from turbo4d.tools.measure.regions import preset_plan
from turbo4d.tools.options import scene_numbers
from turbo4d.tools.plan_rows import facts, letters
from turbo4d.tools.sampling import Turbo, sample_plain
from turbo4d.tools.scene_input import scene_input

MOTIONS: Mapping[str, float] = {"still": 0.0, "slow": 0.5, "fast": 1.5}
FACTORS = (0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0)
CEILINGS = (0.6, 0.8, 1.0, 1.25, 1.5)
PRESETS = ("balanced", "fast")
_KINDS: tuple[RegionKind, ...] = ("core", "level")


@dataclass(frozen=True)
class Way:
    """A plan, and the bounds of a run that may leave it; None where it may not."""

    name: str
    plan: Plan
    bounds: Mapping[str, float] | None = None


def ways_of(turbo: Turbo) -> list[Way]:
    """The presets' policy at every factor, each plan once; then the adaptive runs."""
    found: dict[str, Way] = {}
    by_kind = reusable(turbo.regions, _KINDS)
    for preset in PRESETS:
        like, own = preset_plan(turbo, preset, _KINDS), THRESHOLDS[preset]
        for factor in FACTORS:
            passed = {kind: own.passed[kind] * factor for kind in own.passed}
            scaled = dataclasses.replace(own, passed=passed)
            rows = rows_of(edm_sigmas(turbo.steps)[:-1].tolist(), scaled, by_kind)
            plan = dataclasses.replace(like, streams={"main": rows})
            found.setdefault(letters(plan), Way(letters(plan), plan))
    planned = [
        Way(
            f"{preset}, {name}, ceiling {ceiling}",
            preset_plan(turbo, preset, _KINDS),
            {"ceiling": ceiling, "power": power},
        )
        for name, power in (("unmeasured", 0.0), ("adaptive", Bounds().power))
        for preset in PRESETS
        for ceiling in CEILINGS
    ]
    return [*found.values(), *planned]


def measure(
    model: LoadedModel, turbo: Turbo, scenes: Sequence[int], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """One row for each run: scene, motion, way, operations over the uncached run's, PSNR."""
    views, frames = model.config.views or 1, model.config.frames or 1
    ways: list[Way] = []
    rows: list[dict[str, Any]] = []
    for index, scene in enumerate(scenes):
        motion = list(MOTIONS)[index % len(MOTIONS)]
        rendered = render_scene(scene, views=views, frames=frames, motion=MOTIONS[motion])
        asset = prepare(model, scene_input(rendered), seed=scene)
        if not ways:
            turbo.sample(asset)
            ways = ways_of(turbo)
        say(f"scene {scene}, {motion}: uncached")
        reference = decode(model, sample_plain(model, asset, turbo.steps))
        mask = object_mask(asset.scene, reference)
        for way in ways:
            say(f"scene {scene}, {motion}: {way.name}")
            latent = turbo.sample(asset, way.plan, adaptive=way.bounds or False)
            image = decode(model, latent)
            row = {"scene": scene, "motion": motion, "name": way.name, **_ran(turbo, way)}
            rows.append({**row, "psnr_mask_db": psnr(image, reference, mask)})
    return rows


def _ran(turbo: Turbo, way: Way) -> dict[str, Any]:
    """What the last session did: its operations over an uncached run's, and its departures."""
    report = turbo.report
    if report is None:
        raise ValueError("measure-adaptive: the network has not been sampled yet")
    check = way.plan.check(turbo.regions)
    keys = [key for row in check.keys.values() for key in row if key is not None]
    if way.bounds is not None:
        keys = [rung.key for rung in rungs_of(way.plan, check, "main", turbo.regions)]
    calls = report["calls_by_variant"]
    whole = turbo.flops(VariantKey((), (), exact=False)) * turbo.steps
    spent = sum(turbo.flops(key) * calls.get(key.name, 0) for key in dict.fromkeys(keys))
    decisions = report["decisions"]
    return {
        "cost": (turbo.prologue_flops + spent) / whole,
        "departures": sum(each["variant"] != each["planned"] for each in decisions),
        "scene_error": decisions[-1]["scene"] if decisions else None,
    }


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line for each way: means over the scenes, and what a static plan of its PSNR costs."""
    names = list(dict.fromkeys(row["name"] for row in rows))
    lines: list[dict[str, Any]] = []
    for name in names:
        own = [row for row in rows if row["name"] == name]
        found = [row["psnr_mask_db"] for row in own]
        lines.append(
            {
                "name": name,
                "cost": fmean(row["cost"] for row in own),
                "psnr_mean_db": fmean(found),
                "psnr_worst_db": min(found),
                "departures": fmean(row["departures"] for row in own),
            }
        )
    static = [line for line in lines if "adaptive" not in line["name"]]
    for line in lines:
        if "adaptive" in line["name"]:
            for field in ("psnr_mean_db", "psnr_worst_db"):
                line[f"static_cost_at_{field}"] = _cost_at(static, field, line[field])
    return lines


def _cost_at(static: Sequence[Mapping[str, Any]], field: str, wanted: float) -> float | None:
    """Of the cheapest mix of static plans that reaches a PSNR; None where none does."""
    points = sorted((line["cost"], line[field]) for line in static)
    best: list[tuple[float, float]] = []
    for cost, reached in points:
        if not best or reached > best[-1][1]:
            best.append((cost, reached))
    if wanted <= best[0][1]:
        return best[0][0]
    for (cost, low), (next_cost, high) in pairwise(best):
        if wanted <= high:
            return cost + (next_cost - cost) * (wanted - low) / (high - low)
    return None


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=scene_numbers, default=tuple(range(12)))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    model = load_model("nano", None, torch.float32, torch.device("cpu"))
    turbo = Turbo(model, args.steps, {"plan": "exact"})
    rows = measure(model, turbo, args.scenes, lambda text: print(text, file=sys.stderr, flush=True))
    lines = summarise(rows)
    found = {
        **facts(model, scenes=list(args.scenes), steps=args.steps, dtype="fp32"),
        "motions": dict(MOTIONS),
        "rows": lines,
        "runs": rows,
    }
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    for line in lines:
        print(
            f"{line['name']:32} cost {line['cost']:.3f}  mean {line['psnr_mean_db']:5.2f} dB  "
            f"worst {line['psnr_worst_db']:5.2f} dB  "
            + ", ".join(
                f"static at its {field.split('_')[-2]}: {line[field]:.3f}"
                for field in line
                if field.startswith("static") and line[field] is not None
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
