r"""Measures how well an error table ranks plans: predicted against measured, over random plans.

The table is measured on the calibration scenes; random plans of all its moves are then sampled on
the first of them, and their PSNR in the object is compared with the prediction. What was measured
is kept in a state file, so the command goes on where it was stopped.

Example:
    python tools/measure/predictor.py --plans 240 --scenes 0-1 --state /tmp/predictor.state.json \
        --out tools/results/predictor-nano-v1.json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from turbo4d.compiler.calibrate.error_table import ErrorTable
from turbo4d.compiler.calibrate.harness import Harness
from turbo4d.compiler.calibrate.measure import measure
from turbo4d.compiler.calibrate.plan_moves import predicted_db, predicted_error
from turbo4d.compiler.calibrate.rank import spearman
from turbo4d.compiler.calibrate.state import State
from turbo4d.compiler.calibrate.table_file import from_json, to_json
from turbo4d.tools.asset import Asset
from turbo4d.tools.calibration.nano_sampler import NanoSampler, calibration_assets
from turbo4d.tools.environment import commit, device_name
from turbo4d.tools.load_model import load_model
from turbo4d.tools.measure.random_plans import draw, plan_of
from turbo4d.tools.options import scene_numbers

CALIBRATION_SCENES = 4


def points_of(
    harness: Harness,
    table: ErrorTable,
    assets: Sequence[Asset],
    scenes: Sequence[int],
    plans: int,
    state: State,
) -> list[dict[str, Any]]:
    """Per plan its letters, its predicted dB and the measured one, of the scenes' mean error."""
    letters = {move.name: move.letter for move in table.moves}
    found: list[dict[str, Any]] = []
    for seed in range(plans):
        drawn = {
            stream: draw(seed, table.moves, table.groups, len(steps))
            for stream, steps in table.streams.items()
        }
        plan = plan_of(harness, f"random {seed}", drawn, table.moves)
        if not predicted_error(table, plan, harness.regions):
            continue
        start_s = time.perf_counter()
        measured = [
            state.once(
                f"plan {seed} scene {scene}", partial(_decibels, harness, assets[scene], plan)
            )
            for scene in scenes
        ]
        point = {
            "seed": seed,
            "letters": {s: "".join(letters[m] for m, _ in of) for s, of in drawn.items()},
            "orders": {s: "".join(str(order) for _, order in of) for s, of in drawn.items()},
            "predicted_db": predicted_db(table, plan, harness.regions),
            "measured_db": _mean_db(measured),
        }
        found.append(point)
        print(
            f"plan {seed}: {' '.join(point['letters'].values())} predicted "
            f"{point['predicted_db']:.1f} dB, measured {point['measured_db']:.1f} dB "
            f"({time.perf_counter() - start_s:.0f} s)",
            file=sys.stderr,
            flush=True,
        )
    return found


def _decibels(harness: Harness, asset: Asset, plan: Any) -> float:
    return harness.judge(asset, harness.follow(asset, plan))


def _mean_db(decibels: Sequence[float]) -> float:
    return -20 * math.log10(sum(10 ** (-each / 20) for each in decibels) / len(decibels))


def summary(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How the two columns of the points lie to each other."""
    predicted = [point["predicted_db"] for point in points]
    measured = [point["measured_db"] for point in points]
    off = sorted(abs(one - other) for one, other in zip(predicted, measured, strict=True))
    return {
        "plans": len(points),
        "spearman": spearman(predicted, measured),
        "median_off_db": off[len(off) // 2],
        "worst_off_db": off[-1],
        "mean_off_db": sum(p - m for p, m in zip(predicted, measured, strict=True)) / len(points),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plans", type=int, default=240)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--scenes", type=scene_numbers, default=(0,), help="that plans sample")
    parser.add_argument("--state", type=Path, required=True, help="goes on where it was stopped")
    parser.add_argument("--table", type=Path, help="an error table's file; measured where absent")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    model = load_model("nano", None, torch.float32, torch.device("cpu"))
    sampler = NanoSampler(model, args.steps)
    assets = calibration_assets(model, max(CALIBRATION_SCENES, *(s + 1 for s in args.scenes)))
    harness = Harness(model.network, sampler, fidelity=sampler.fidelity)
    harness.learn(assets[0])
    identity = {"model": harness.model, "weights": model.weights_sha256, "steps": str(args.steps)}
    state = State(args.state, identity)
    table, seconds = _table(args.table, harness, assets[:CALIBRATION_SCENES], state)
    points = points_of(harness, table, assets, args.scenes, args.plans, state)
    found = {
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        "split": "validation",
        "scenes": list(args.scenes),
        "steps": args.steps,
        "device": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit(),
        "measure_s": seconds,
        **summary(points),
        "points": points,
    }
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print({name: value for name, value in found.items() if name != "points"})
    return 0


def _table(
    path: Path | None, harness: Harness, assets: Sequence[Asset], state: State
) -> tuple[ErrorTable, float | None]:
    """The table and, where it was measured here and now, the seconds that took."""
    if path is not None and path.exists():
        return from_json(path.read_text("utf-8")), None
    start_s = time.perf_counter()

    def tell(share: float, what: str) -> None:
        print(f"{share:4.0%} {what}", file=sys.stderr, flush=True)

    named = [(f"validation {at}", asset) for at, asset in enumerate(assets)]
    table = measure(harness, named, state, progress=tell)
    if path is not None:
        path.write_text(to_json(table))
    return table, time.perf_counter() - start_s


if __name__ == "__main__":
    sys.exit(main())
