"""Measures what reusing one kind of region alone buys and costs on nano, at three strengths.

Every plan runs beside the uncached network on the same held-out scenes, in turn: block, chain,
level and core reuse under the thresholds of `quality`, `balanced` and `fast`, the exact passes
alone, the presets as they are, and uncached runs of fewer steps by two solvers.

Example:
    python tools/measure_regions.py --scenes 0-4 --runs 3 --out tools/results/regions-nano-v1.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from turbo4d.models.schedule import edm_sigmas
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.policy import KINDS, THRESHOLDS, resolve
from turbo4d.tools.asset import Asset, decode, image_size, prepare
from turbo4d.tools.environment import commit, device_name
from turbo4d.tools.fidelity import object_mask, to_reference, to_truth
from turbo4d.tools.load_model import DTYPES, LoadedModel, load_model
from turbo4d.tools.options import scene_numbers
from turbo4d.tools.rounds import Rounds
from turbo4d.tools.sampling import SOLVERS, Turbo, sample_plain
from turbo4d.tools.scene_input import held_out_scene
from turbo4d.tools.timing import Timed

FEWER_STEPS = (3, 4, 5, 6, 8, 10)


def plans_of(turbo: Turbo) -> dict[str, Plan]:
    """Name -> plan: presets, and "kind at preset" for each kind of region alone.

    Args:
        turbo: whose last session ran under preset `exact`.
    """
    like = turbo.plan
    if like is None:
        raise ValueError("measure-regions: the network has not been sampled yet")

    def made(preset: str, use: tuple[str, ...] | None) -> Plan:
        return resolve(
            preset,
            levels=edm_sigmas(turbo.steps).tolist(),
            model=like.model,
            geometry=like.geometry,
            regions=turbo.regions,
            use=use,
        )

    alone = {
        f"{kind} at {preset}": made(preset, (kind,)) for kind in KINDS for preset in THRESHOLDS
    }
    return {"exact": like, **{preset: made(preset, None) for preset in THRESHOLDS}, **alone}


def measure(
    model: LoadedModel,
    turbo: Turbo,
    scenes: Sequence[int],
    runs: int,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """One row per plan and per uncached run: medians over the scenes."""
    config = model.config
    shape = (config.views or 1, config.frames or 1, image_size(model))
    assets = [prepare(model, held_out_scene(scene, *shape), seed=0) for scene in scenes]
    say("compiling")
    turbo.sample(assets[0])
    plans = plans_of(turbo)
    for name, plan in plans.items():
        say(f"warm: {name}")
        turbo.sample(assets[0], plan)
    fewer = [(count, solver) for count in FEWER_STEPS for solver in SOLVERS]
    for count, solver in fewer:
        sample_plain(model, assets[0], count, solver)

    def jobs(asset: Asset) -> dict[str, Callable[[], Tensor]]:
        return {
            "uncached": partial(sample_plain, model, asset, turbo.steps),
            **{name: partial(turbo.sample, asset, plan) for name, plan in plans.items()},
            **{f"{count} steps, {s}": partial(sample_plain, model, asset, count, s)
               for count, s in fewer},
        }  # fmt: skip

    rounds = Rounds(assets, runs, torch.device("cpu"), say)
    rounds.run(jobs)
    say("decoding")
    judged = [_judge(model, *one) for one in zip(assets, rounds.found, strict=True)]
    return [_row(name, [scene[name] for scene in judged], plans.get(name)) for name in judged[0]]


def _judge(
    model: LoadedModel, asset: Asset, found: Mapping[str, Timed]
) -> dict[str, dict[str, float]]:
    uncached = found["uncached"]
    reference = decode(model, uncached.result)
    mask = object_mask(asset.scene, reference)
    truth = to_truth(reference, asset.scene)["gt_psnr_mask_db"] or 0.0
    rows: dict[str, dict[str, float]] = {}
    for name, one in found.items():
        images = decode(model, one.result)
        difference = (one.result - uncached.result).norm() / uncached.result.norm()
        rows[name] = {
            "speedup": uncached.timing.median / one.timing.median,
            "seconds": one.timing.median,
            "latent_error": float(difference),
            "gt_loss_mask_db": truth - (to_truth(images, asset.scene)["gt_psnr_mask_db"] or 0.0),
            **to_reference(images, reference, mask),
        }
    return rows


def _row(name: str, scenes: Sequence[Mapping[str, float]], plan: Plan | None) -> dict[str, Any]:
    figures = {field: median(scene[field] for scene in scenes) for field in scenes[0]}
    worst = min(scene["psnr_mask_db"] for scene in scenes)
    cells = None if plan is None else "".join(_letter(row) for row in plan.streams["main"])
    return {"name": name, **figures, "psnr_mask_worst_db": worst, "steps": cells}


def _letter(row: Mapping[str, object] | None) -> str:
    """C computed, else the first letter of the reused kind; K for the core."""
    names = list(row or ())
    if not names:
        return "C"
    if names == ["core"]:
        return "K"
    return {"level": "L", "chain": "c"}.get(names[0].partition(".")[0], "") or (
        "c" if all(name.endswith("chain") for name in names) else "b"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=scene_numbers, default=(0, 1, 2, 3, 4))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="fp32")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    device = torch.device("cpu")
    model = load_model("nano", None, DTYPES[args.dtype], device)
    turbo = Turbo(model, args.steps, {"plan": "exact"})
    rows = measure(
        model, turbo, args.scenes, args.runs, lambda text: print(text, file=sys.stderr, flush=True)
    )
    found = {
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        "scenes": list(args.scenes),
        "runs": args.runs,
        "steps": args.steps,
        "dtype": args.dtype,
        "lowering": "eager",
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit(),
        "rows": rows,
    }
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    for row in rows:
        print(f"{row['name']:24} {row['speedup']:6.2f}x {row['psnr_mask_db']:7.2f} dB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
