"""Plans side by side on held-out scenes: time, error, operations and memory of each."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.report import Report
from turbo4d.tools.asset import Asset, decode, image_size, prepare
from turbo4d.tools.environment import commit, device_name
from turbo4d.tools.fidelity import object_mask, to_reference, to_truth
from turbo4d.tools.load_model import DTYPES, LoadedModel, load_model
from turbo4d.tools.options import scene_numbers
from turbo4d.tools.rounds import Rounds
from turbo4d.tools.sampling import Turbo, sample_plain
from turbo4d.tools.scene_input import held_out_scene
from turbo4d.tools.timing import Timed

Say = Callable[[str], None]


@dataclass(frozen=True)
class Way:
    """One way to sample.

    Args:
        plan: that turbo4d carries out; None for the uncached network.
        adaptive: whether the run may leave it.
        steps: of an uncached run, None for as many as the plans have.
        solver: of an uncached run.
    """

    plan: Plan | None
    adaptive: bool = False
    steps: int | None = None
    solver: str = "euler"


def measure(
    model: LoadedModel,
    turbo: Turbo,
    ways: Callable[[Turbo], Mapping[str, Way]],
    scenes: Sequence[int],
    runs: int,
    say: Say,
) -> list[dict[str, Any]]:
    """One row for each way: medians over the scenes.

    Args:
        model: the network.
        turbo: the same network, compiled.
        ways: name -> way, once turbo has been sampled.
        scenes: held-out ones.
        runs: of each way and scene, in turn.
        say: told what is going on.
    """
    config = model.config
    shape = (config.views or 1, config.frames or 1, image_size(model))
    assets = [prepare(model, held_out_scene(scene, *shape), seed=0) for scene in scenes]
    say("compiling")
    turbo.sample(assets[0])
    found = {"uncached": Way(None), **ways(turbo)}
    reports: dict[str, Report] = {}
    for name, way in found.items():
        say(f"warm: {name}")
        _sample(model, turbo, way, assets[0])
        if way.plan is not None and turbo.report is not None:
            reports[name] = turbo.report

    def jobs(asset: Asset) -> dict[str, Callable[[], Tensor]]:
        return {name: partial(_sample, model, turbo, way, asset) for name, way in found.items()}

    rounds = Rounds(assets, runs, torch.device("cpu"), say)
    rounds.run(jobs)
    say("decoding")
    judged = [_judge(model, *one) for one in zip(assets, rounds.found, strict=True)]
    return [
        _row(name, [scene[name] for scene in judged], way, turbo, reports.get(name))
        for name, way in found.items()
    ]


def command(
    description: str | None,
    ways: Callable[[Turbo], Mapping[str, Way]],
    line: Callable[[Mapping[str, Any]], str],
    argv: Sequence[str] | None,
) -> int:
    """A script that measures some ways on nano, writes its report and prints a line a row.

    Args:
        description: of the script.
        ways: see `measure`.
        line: what is printed of a row.
        argv: the call, None for the process's own.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=scene_numbers, default=(0, 1, 2, 3, 4))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="fp32")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    model = load_model("nano", None, DTYPES[args.dtype], torch.device("cpu"))
    turbo = Turbo(model, args.steps, {"plan": "exact"})
    rows = measure(
        model,
        turbo,
        ways,
        args.scenes,
        args.runs,
        lambda text: print(text, file=sys.stderr, flush=True),
    )
    asked = {name: getattr(args, name) for name in ("runs", "steps", "dtype")}
    found = {**facts(model, scenes=list(args.scenes), **asked), "rows": rows}
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    for row in rows:
        print(line(row))
    return 0


def facts(model: LoadedModel, **asked: Any) -> dict[str, Any]:
    """What the rows depend on: the model, the call, the machine, the versions."""
    return {
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        **asked,
        "lowering": "eager",
        "device": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit(),
    }


def _sample(model: LoadedModel, turbo: Turbo, way: Way, asset: Asset) -> Tensor:
    if way.plan is None:
        return sample_plain(model, asset, way.steps or turbo.steps, way.solver)
    return turbo.sample(asset, way.plan, adaptive=way.adaptive)


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


def _row(
    name: str,
    scenes: Sequence[Mapping[str, float]],
    way: Way,
    turbo: Turbo,
    report: Report | None,
) -> dict[str, Any]:
    figures = {field: median(scene[field] for scene in scenes) for field in scenes[0]}
    steps = way.steps or turbo.steps
    return {
        "name": name,
        **figures,
        "ms_per_step": figures["seconds"] / steps * 1e3,
        "psnr_mask_worst_db": min(scene["psnr_mask_db"] for scene in scenes),
        "flops": None if way.plan is None else run_flops(turbo, way.plan),
        "cache_peak_bytes": report["cache_peak_bytes"] if report else 0,
        "steps": None if way.plan is None else letters(way.plan),
    }


def run_flops(turbo: Turbo, plan: Plan) -> int:
    """Operations of all steps of a plan's first stream, and of its prologue."""
    keys = next(iter(plan.check(turbo.regions).keys.values()))
    prologue = turbo.prologue_flops if plan.exact else 0
    return prologue + sum(turbo.flops(key) for key in keys if key is not None)


def letters(plan: Plan) -> str:
    """The plan's first stream, a letter a step; see `letter`."""
    return "".join(letter(row) for row in next(iter(plan.streams.values())))


def letter(row: Mapping[str, object] | None) -> str:
    """C computed, p pruned, x bypassed; reused: F the step, K core, L level, c chains, b blocks."""
    names = list(row or ())
    if not names:
        return "C"
    action = str((row or {})[names[0]])
    if action.startswith("prune"):
        return "p"
    if action == "bypass":
        return "x"
    if names == ["step"]:
        return "F"
    if names == ["core"]:
        return "K"
    if names[0].startswith("level"):
        return "L"
    return "c" if all(name.endswith("chain") for name in names) else "b"
