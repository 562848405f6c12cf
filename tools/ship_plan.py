"""Puts a calibrated plan among those that come with turbo4d, under a preset's name.

The plan must say in its origin what found it and what it reached, be for the named model as it
stands here, and pass its check.

Example:
    python tools/ship_plan.py out/nano-30.json --preset fast
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.models.config import SV4DConfig
from turbo4d.models.example_inputs import example_inputs
from turbo4d.models.unet import SV4DUNet
from turbo4d.runtime.errors import PlanError, Turbo4DError
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.policy import THRESHOLDS
from turbo4d.runtime.shipped_plans import FOLDER

CALIBRATED = "calibrated: "


def ship(path: Path, preset: str, model: str, folder: Path = FOLDER) -> Path:
    """Write the plan into the folder of shipped plans; gives the file's path.

    Args:
        path: of the plan's file.
        preset: that will mean it.
        model: a named configuration, which the plan must be for.
        folder: of shipped plans.

    Raises:
        PlanError: a plan that no calibration made, or for another model, or that fails its check.
    """
    plan = Plan.load(path)
    if not plan.origin.startswith(CALIBRATED):
        raise PlanError(
            f"plan {plan.name!r}: its origin is {plan.origin!r}; wanted one that begins with "
            f"{CALIBRATED!r}. Ship a plan that turbo4d calibrate wrote."
        )
    analysis = analysis_of(model)
    if plan.model != analysis.capture.fingerprint:
        raise PlanError(
            f"plan {plan.name!r} is for model {plan.model!r}; {model} is "
            f"{analysis.capture.fingerprint!r}. Calibrate it for this model."
        )
    fitted = any(
        action.mix
        for rows in plan.streams.values()
        for row in rows
        for action in (row or {}).values()
    )
    if fitted and not plan.weights_sha256:
        raise PlanError(
            f"plan {plan.name!r}: it reuses by fitted weights and does not say which network's; "
            "calibrate it anew with this version."
        )
    plan.check([region.info for region in analysis.regions])
    target = folder / f"{model}-{plan.steps}-{preset}.json"
    replace(plan, name=preset).save(target)
    return target


@cache
def analysis_of(model: str) -> Analysis:
    """What the compiler knows of a named configuration; needs no weights."""
    network = SV4DUNet(SV4DConfig.named(model), device="meta").eval()
    inputs = example_inputs(network.config, device=torch.device("meta"))
    return analyse(capture_export(network, (), inputs))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("--preset", choices=sorted(THRESHOLDS), required=True)
    parser.add_argument("--model", default="nano")
    args = parser.parse_args(argv)
    try:
        print(ship(args.plan, args.preset, args.model))
    except (Turbo4DError, OSError) as error:
        print(f"ship_plan: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
