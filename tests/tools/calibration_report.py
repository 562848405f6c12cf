"""A made-up report of a calibration with every part that the page draws. No figure is measured."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from turbo4d.runtime.action import Action
from turbo4d.runtime.geometry import Geometry
from turbo4d.runtime.plan import Plan

LETTERS = "CKKKKKKKKKKKKCLCLKKK"
STEPS = len(LETTERS)
REUSED = {"K": "core", "L": "level.1"}
BYTES = {"core": 1_310_720, "level.1": 2_621_440}
GROUPS = (
    "core",
    "level.1",
    "level.2",
    "chains",
    "blocks.spatial",
    "blocks.camera",
    "blocks.motion",
)
SYSTEMS = (
    "turbo4d",
    "uniform",
    "deepcache",
    "pab",
    "fora",
    "teacache",
    "first-block-cache",
    "magcache",
    "taylorseer",
    "steps:euler",
    "steps:dpm++2m",
)


def sample_report() -> dict[str, Any]:
    """The report, as JSON would give it back."""
    predicted = [{"C": 0.235, "L": 0.135, "K": 0.0006}[letter] for letter in LETTERS]
    slots, live = _slots()
    report = {
        "schema_version": 1,
        "model": "nano",
        "weights": "trained",
        "fidelity": "PSNR in the object",
        "weights_sha256": "3f" * 32,
        "command": "turbo4d calibrate --model nano --min-psnr 33 --out plan.json",
        "device": "cpu: made up",
        "threads": 2,
        "torch": "2.13.0",
        "commit": "0" * 40,
        "steps": STEPS,
        "lowering": "eager",
        "dtype": "float32",
        "target_db": 33.0,
        "worst_slack_db": 2.0,
        "max_cache_bytes": 4_000_000,
        "max_variants": 8,
        "plan": json.loads(_plan().to_json()),
        "regions": _regions(),
        "moves": [
            {"name": "compute", "letter": "C"},
            {"name": "core", "letter": "K"},
            {"name": "level.1", "letter": "L"},
        ],
        "letters": {"main": LETTERS},
        "drift": {"levels": list(_levels()), "curves": _curves(), "matrix": _matrices()},
        "gains": {
            name: [0.3 * at * math.exp(-(((step - 14) / 4) ** 2)) for step in range(STEPS)]
            for at, name in enumerate(("core", "level.1", "chains"), 1)
        },
        "predictor": {
            "plans": 60,
            "spearman": 0.97,
            "points": [[20 + at / 3, 20 + at / 3 + 2 * math.sin(at)] for at in range(60)],
        },
        "machine": {"name": "made up", "matmul_flops": 1.5e11, "bandwidth": 2e10, "launch_s": 4e-6},
        "predicted": {
            "seconds": sum(predicted),
            "psnr_db": 33.4,
            "seconds_by_step": predicted,
            "cache_peak_bytes": max(live),
        },
        "measured": {
            "seconds": 0.92,
            "seconds_by_step": [
                value * (1.1 + 0.1 * math.sin(at)) for at, value in enumerate(predicted)
            ],
            "cache_peak_bytes": max(live),
            "uncached_seconds": 6.54,
            "speedup": 7.1,
        },
        "frontier": [
            {
                "budget_db": 20 + 2.0 * at,
                "predicted_seconds": 0.3 + 0.02 * at**1.8,
                "proven": at % 5 != 3,
                "letters": LETTERS,
                "psnr_mean_db": 21 + 2.0 * at,
                "psnr_worst_db": 20 + 2.0 * at,
            }
            for at in range(16)
        ],
        "calibration": _scenes(4, 33.6),
        "held_out": _scenes(16, 33.3),
        "memory": {
            "live_bytes_by_step": live,
            "bound": 4_000_000,
            "arena_bytes": max(live),
            "slots": slots,
        },
        "pareto": _pareto(),
        "psnr_by_view_frame": [
            [34 - 0.4 * view + math.sin(frame) for frame in range(5)] for view in range(4)
        ],
        "notes": ["These figures are made up for a test."],
        "seconds_spent": {
            "learn": 5.0,
            "measure": 200.0,
            "search": 90.0,
            "verify": 40.0,
            "held_out": 60.0,
        },
    }
    return json.loads(json.dumps(report, allow_nan=False))


def sample_images(views: int = 4, frames: int = 5, side: int = 16) -> dict[str, Tensor]:
    """A square that moves, and the same square a little darker."""
    images = torch.ones(views, frames, 3, side, side)
    for view in range(views):
        for frame in range(frames):
            left = (2 * frame + view) % (side - 4)
            images[view, frame, :, 4:10, left : left + 4] = torch.tensor([0.8, 0.2, 0.1]).view(
                3, 1, 1
            )
    return {"before": images, "after": images * 0.96}


def _levels() -> tuple[float, ...]:
    high, low = 700.0 ** (1 / 7), 0.002 ** (1 / 7)
    return tuple((high + at / (STEPS - 1) * (low - high)) ** 7 for at in range(STEPS))


def _plan() -> Plan:
    rows = tuple(
        {REUSED[letter]: Action.parse("reuse")} if letter in REUSED else {} for letter in LETTERS
    )
    return Plan(
        "made-up",
        "f" * 16,
        Geometry(2, 4, 5, 16, 16),
        _levels(),
        "sigma",
        {"main": rows},
        12,
        8,
        max_cache_bytes=4_000_000,
        error_budget_db=33.0,
    )


def _regions() -> list[dict[str, Any]]:
    found = [("core", "core", None, 21.7e9), ("level.1", "level", "core", 13.3e9)]
    found.append(("level.2", "level", "level.1", 5.25e9))
    for chain, parent in (
        ("down.0.0", "core"),
        ("up.0.0", "core"),
        ("down.1.0", "level.1"),
        ("middle", "level.2"),
    ):
        found.append((f"{chain}.chain", "chain", parent, 2e9))
        found += [
            (f"{chain}.{kind}", "block", f"{chain}.chain", 7e8)
            for kind in ("spatial", "camera", "motion")
        ]
    return [
        {
            "name": name,
            "kind": kind,
            "parent": parent,
            "flops": int(flops),
            "slot_bytes": BYTES.get(name, 655_360),
        }
        for name, kind, parent, flops in found
    ]


def _slots() -> tuple[list[dict[str, Any]], list[int]]:
    """A slot for each group of steps that read the same write; the core's lies at 0."""
    slots: list[dict[str, Any]] = []
    for letter, region in REUSED.items():
        offset = 0 if region == "core" else BYTES["core"]
        written = 0
        for step, at in enumerate(LETTERS):
            if at == letter:
                if slots and (slots[-1]["region"], slots[-1]["written"]) == (region, written):
                    slots[-1]["last_read"] = step
                else:
                    slots.append(
                        {
                            "stream": "main",
                            "region": region,
                            "written": written,
                            "last_read": step,
                            "offset": offset,
                            "bytes": BYTES[region],
                            "storage": "compute",
                        }
                    )
            elif at == "C" or (region == "core" and at == "L"):
                written = step
    live = [
        sum(slot["bytes"] for slot in slots if slot["written"] <= step <= slot["last_read"])
        for step in range(STEPS)
    ]
    return slots, live


def _curves() -> dict[str, list[float | None]]:
    return {
        name: [
            None if not step else (at + 1) * 0.002 * math.exp(3.5 * math.sin(step / 7))
            for step in range(STEPS)
        ]
        for at, name in enumerate(GROUPS)
    }


def _matrices() -> dict[str, list[list[float | None]]]:
    return {
        name: [
            [
                0.01 * (at + 1) * (to - start) * (1 + to / 5) if to > start else None
                for to in range(STEPS)
            ]
            for start in range(STEPS)
        ]
        for at, name in enumerate(GROUPS)
    }


def _scenes(count: int, mean: float) -> dict[str, Any]:
    values = [mean + 1.2 * math.sin(2.0 * at) for at in range(count)]
    return {
        "scenes": list(range(count)),
        "psnr_db": values,
        "mean_db": sum(values) / count,
        "worst_db": min(values),
    }


def _pareto() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for index, system in enumerate(SYSTEMS):
        worse = 3.0 + 0.7 * index if index else 0.0
        for at, wanted in enumerate((0.6, 0.9, 1.4, 2.1, 3.2)):
            mean = 33 + 12 * math.log(wanted / 0.9) - worse + math.sin(3 * at + index)
            rows.append(_row(system, at, wanted, mean))
    return rows


def _row(system: str, at: int, wanted: float, mean: float) -> dict[str, Any]:
    return {
        "system": system,
        "knob": f"n = {at + 2}",
        "seconds": wanted,
        "speedup": 6.54 / wanted,
        "psnr_mean_db": mean,
        "psnr_worst_db": mean - 1.5,
        "letters": "" if "steps" in system else LETTERS,
    }


def without(report: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The report without some of its parts, each null."""
    return {**report, **dict.fromkeys(keys)}
