"""What `turbo4d generate` does once its call has been read: sample, judge, write the files."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from turbo4d.tools.asset import Asset, decode, image_size, prepare
from turbo4d.tools.asset_files import scene_folders, write_comparison, write_json, write_sample
from turbo4d.tools.comparison import Comparison, compare
from turbo4d.tools.failures import CallError
from turbo4d.tools.load_model import DTYPES, LoadedModel, load_model
from turbo4d.tools.options import PRESETS
from turbo4d.tools.outcome import Outcome
from turbo4d.tools.plan_option import plan_option
from turbo4d.tools.report import build_report, facts_of, facts_of_session
from turbo4d.tools.sampling import Turbo, lowered
from turbo4d.tools.scene_input import SceneInput, held_out_scene, scene_folder
from turbo4d.tools.summary import summary
from turbo4d.tools.timing import timed

Say = Callable[[str], None]


def generate(args: argparse.Namespace, folder: Path, say: Say) -> Outcome:
    """Carry out the command.

    Args:
        args: the call, as checked.
        folder: an empty one to write into.
        say: told what is going on.
    """
    device = choose_device(args.device)
    model = load_model(args.model, args.checkpoint, DTYPES[args.dtype], device)
    turbo = Turbo(model, args.steps, _options(args, model))
    plain = lowered(model, args.lowering)
    say("reading the scenes")
    assets = [prepare(model, scene, args.seed) for scene in _scenes(args, model)]
    if args.compare:
        found = compare(plain, turbo, assets, args.runs, device, say)
        return _compared(args, model, turbo, found, device, folder)
    return _sampled(args, model, turbo, assets, device, folder, say)


def choose_device(name: str) -> torch.device:
    """The device that --device names.

    Raises:
        CallError: torch does not know it or sees none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise CallError(f"--device {name!r} is unknown; choose 'auto', 'cpu' or 'cuda'.")
    if name != "cpu" and not torch.cuda.is_available():
        raise CallError(f"--device {name!r} is not there: torch sees no CUDA device; use 'cpu'.")
    return torch.device(name)


def _scenes(args: argparse.Namespace, model: LoadedModel) -> list[SceneInput]:
    views, frames, size = model.config.views or 1, model.config.frames or 1, image_size(model)
    if args.input is not None:
        return [scene_folder(args.input, views, frames, size)]
    return [held_out_scene(index, views, frames, size) for index in args.scene or (0,)]


def _options(args: argparse.Namespace, model: LoadedModel) -> dict[str, Any]:
    plan = plan_option(args.plan, model.config, args.steps)
    given = {"plan": plan, "lowering": args.lowering, "adaptive": args.adaptive}
    return given if args.regions is None else {**given, "regions": args.regions}


def _write_plan(folder: Path, turbo: Turbo) -> None:
    if turbo.plan is not None:
        turbo.plan.save(folder / "plan.json")


def _asked(args: argparse.Namespace, turbo: Turbo) -> dict[str, Any]:
    is_file = args.plan not in PRESETS
    return {
        "seed": args.seed,
        "steps": args.steps,
        "plan": turbo.plan.name if is_file and turbo.plan is not None else args.plan,
        "plan_origin": turbo.plan.origin if turbo.plan is not None else None,
        "plan_file": Path(args.plan).name if is_file else None,
        "adaptive": args.adaptive,
        "regions": list(args.regions) if args.regions is not None else None,
        "lowering": args.lowering,
        "dtype": args.dtype,
        "runs": args.runs,
    }


def _compared(
    args: argparse.Namespace,
    model: LoadedModel,
    turbo: Turbo,
    found: Comparison,
    device: torch.device,
    folder: Path,
) -> Outcome:
    report = build_report(model, found, _asked(args, turbo), device)
    names = [result.asset.scene.name for result in found.scenes]
    for name, place, result in zip(names, scene_folders(folder, names), found.scenes, strict=True):
        write_comparison(place, result.images, _title(args, name))
    write_json(folder / "report.json", report)
    _write_plan(folder, turbo)
    return Outcome(report, f"{summary(report, turbo.picture())}\n\nwritten to {args.out}")


def _sampled(
    args: argparse.Namespace,
    model: LoadedModel,
    turbo: Turbo,
    assets: Sequence[Asset],
    device: torch.device,
    folder: Path,
    say: Say,
) -> Outcome:
    names, seconds = [asset.scene.name for asset in assets], []
    for name, place, asset in zip(names, scene_folders(folder, names), assets, strict=True):
        say(f"{name}: sampling")
        latent, taken = timed(partial(turbo.sample, asset), device)
        seconds.append(taken)
        write_sample(place, decode(model, latent), _title(args, name))
    facts = {**facts_of(model, _asked(args, turbo), device), "scenes": names, "seconds": seconds}
    facts |= facts_of_session(turbo.report or {})
    _write_plan(folder, turbo)
    text = (
        f"{model.name} ({model.weights} weights), {', '.join(names)}: {args.steps} steps under "
        f"plan {args.plan} in {sum(seconds):.1f} s, compilation included\n\n"
        f"{turbo.picture()}\n\nwritten to {args.out}"
    )
    return Outcome(facts, text)


def _title(args: argparse.Namespace, name: str) -> str:
    return f"{args.model}, {name}, plan {Path(args.plan).name}, {args.steps} steps"
