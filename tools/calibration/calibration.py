"""What `turbo4d calibrate` does once its call has been read."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from turbo4d.compiler.calibrate.calibrate import Calibration, calibrate
from turbo4d.runtime.plan_text import picture
from turbo4d.tools.asset import Asset
from turbo4d.tools.asset_files import write_json
from turbo4d.tools.calibration.nano_sampler import (
    NanoSampler,
    calibration_assets,
    held_out_assets,
)
from turbo4d.tools.calibration.page import page
from turbo4d.tools.device import choose_device
from turbo4d.tools.environment import commit
from turbo4d.tools.load_model import DTYPES, LoadedModel, load_model
from turbo4d.tools.outcome import Outcome


def calibration(
    args: argparse.Namespace,
    state: Path,
    paths: tuple[Path, Path, Path],
    say: Callable[[str], None],
) -> Outcome:
    """Carry out the command.

    Args:
        args: the call, as checked.
        state: what was found so far.
        paths: where the plan, the report and the page are written.
        say: told what is going on.
    """
    model = load_model(args.model, args.checkpoint, DTYPES[args.dtype], choose_device(args.device))
    say("rendering the scenes")
    examples = calibration_assets(model, args.scenes)
    held_out = held_out_assets(model, args.held_out, args.seed)
    sampler = NanoSampler(model, args.steps)
    found = calibrate(
        model.network,
        sampler,
        examples,
        args.min_psnr,
        held_out=held_out,
        max_cache_bytes=args.max_cache,
        max_variants=args.max_variants,
        worst_slack_db=args.worst_slack,
        state=state,
        fidelity=sampler.fidelity,
        progress=say,
        use=None if args.moves is None else [name.strip() for name in args.moves.split(",")],
        names=[f"validation {asset.scene.name}" for asset in examples],
        held_out_names=[asset.scene.name for asset in held_out],
        command=command_line(args),
    )
    shown = (held_out or examples)[0]
    report, images = _with_images(found, sampler, shown)
    report |= _facts(args, model)
    plan, report_path, page_path = paths
    found.plan.save(plan)
    write_json(report_path, report)
    page_path.write_text(page(report, images), encoding="utf-8")
    return Outcome(report, _text(found, report, args))


def command_line(args: argparse.Namespace) -> str:
    """The command that finds the same plan; where it is written does not matter to it."""
    words = [f"turbo4d calibrate --model {args.model} --min-psnr {args.min_psnr:g}"]
    if args.checkpoint is not None:
        words.append(f"--checkpoint {args.checkpoint.name}")
    given: Mapping[str, tuple[Any, Any]] = {
        "--dtype": (args.dtype, "fp32"),
        "--seed": (args.seed, 0),
        "--worst-slack": (args.worst_slack, 2.0),
        "--max-cache": (args.max_cache, None),
        "--max-variants": (args.max_variants, 8),
        "--moves": (args.moves, None),
        "--steps": (args.steps, 20),
        "--scenes": (args.scenes, 4),
        "--held-out": (args.held_out, 16),
    }
    words += [f"{name} {value}" for name, (value, usual) in given.items() if value != usual]
    return " ".join(words)


def _with_images(
    found: Calibration, sampler: NanoSampler, asset: Asset
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    plain, ours = found.harness.reference(asset), found.harness.sample(asset, found.plan)
    cells = sampler.by_view_frame(plain, ours, asset)
    images = {"before": sampler.images(plain), "after": sampler.images(ours)}
    return {**found.report, "psnr_by_view_frame": cells}, images


def _facts(args: argparse.Namespace, model: LoadedModel) -> dict[str, Any]:
    return {
        "model": model.name,
        "weights": model.weights,
        "weights_sha256": model.weights_sha256,
        "fidelity": "PSNR in the object",
        "lowering": "eager",
        "dtype": args.dtype,
        "commit": commit(),
    }


def _text(found: Calibration, report: Mapping[str, Any], args: argparse.Namespace) -> str:
    measured, chosen = report["measured"], report["calibration"]
    lines = [
        f"{measured['speedup']:.2f}x: {measured['seconds']:.3g} s instead of "
        f"{measured['uncached_seconds']:.3g} s on {report['device']}, {report['threads']} threads",
        f"calibration scenes: {chosen['mean_db']:.1f} dB mean, {chosen['worst_db']:.1f} dB worst "
        f"of {len(chosen['psnr_db'])}",
    ]
    if (apart := report["held_out"]) is not None:
        lines.append(
            f"held-out scenes: {apart['mean_db']:.1f} dB mean, {apart['worst_db']:.1f} dB worst of "
            f"{len(apart['psnr_db'])}"
        )
    lines += report["notes"]
    return "\n".join(
        [*lines, "", picture(found.plan, found.harness.regions), "", f"written to {args.out}"]
    )
