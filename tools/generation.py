"""What `turbo4d generate` does once its call has been read: sample, judge, write the files."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from turbo4d.tools.asset import Asset, prepare
from turbo4d.tools.asset_files import scene_folders, write_comparison, write_json
from turbo4d.tools.comparison import Comparison, compare
from turbo4d.tools.device import choose_device
from turbo4d.tools.load_model import DTYPES, LoadedModel, load_model
from turbo4d.tools.options import PRESETS
from turbo4d.tools.outcome import Outcome
from turbo4d.tools.plan_option import plan_option
from turbo4d.tools.report import build_report
from turbo4d.tools.run_facts import facts_of, facts_of_session
from turbo4d.tools.sampled_scenes import sample_scenes, scenes_asked
from turbo4d.tools.sampling import Turbo, lowered
from turbo4d.tools.summary import summary

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
    assets = [prepare(model, scene, args.seed) for scene in scenes_asked(args, model)]
    if args.compare:
        found = compare(plain, turbo, assets, args.runs, device, say)
        return _compared(args, model, turbo, found, device, folder)
    return _sampled(args, model, turbo, assets, device, folder, say)


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
    names = [asset.scene.name for asset in assets]
    seconds, _ = sample_scenes(
        model, turbo.sample, assets, folder, lambda name: _title(args, name), device, say
    )
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
