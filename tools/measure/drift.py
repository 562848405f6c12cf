"""Measures what reusing a region costs nano, per kind and noise level: runtime/policy.py's DRIFT.

At each step of an otherwise uncached run on validation scenes, the regions of one kind take what
they computed at the step before. The figure is the relative error (L2) of the final latent, divided
by the distance of the two levels in ln(sigma).

Example:
    python tools/measure/drift.py --scenes 0-3 --out tools/results/drift-nano-v1.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from turbo4d.models.sampler import guided_denoiser
from turbo4d.models.scenes import render_scene
from turbo4d.models.schedule import edm_sigmas
from turbo4d.runtime.action import REUSE
from turbo4d.runtime.policy import KINDS, reusable
from turbo4d.tools.asset import Asset, prepare
from turbo4d.tools.environment import commit, device_name
from turbo4d.tools.load_model import LoadedModel, load_model
from turbo4d.tools.options import scene_numbers
from turbo4d.tools.sampling import GUIDER, Turbo
from turbo4d.tools.scene_input import scene_input

import turbo4d


@torch.no_grad()
def states_of(model: LoadedModel, asset: Asset, steps: int) -> list[Tensor]:
    """The latent before each step of the uncached run, and the final one [steps + 1]."""
    sigmas = edm_sigmas(steps)
    denoiser = guided_denoiser(model.network, asset.conditioning, GUIDER, sigmas)
    states = [asset.noise * (1.0 + sigmas[0] ** 2).sqrt()]
    for step in range(steps):
        states.append(_after(states[-1], denoiser(states[-1], step), step, sigmas))
    return states


@torch.no_grad()
def densities(
    turbo: Turbo, asset: Asset, states: Sequence[Tensor], regions: Sequence[str]
) -> list[float]:
    """Final error per unit of ln(sigma), of a reuse at each step but the first [steps - 1].

    Args:
        turbo: the compiled network, sampled once.
        asset: of the scene.
        states: of its uncached run.
        regions: that are reused, all at once.
    """
    like, sigmas = turbo.plan, edm_sigmas(turbo.steps)
    if like is None:
        raise ValueError("measure-drift: the network has not been sampled yet")
    found = []
    for step in range(1, turbo.steps):
        rows: list[dict[str, Any]] = [{} for _ in range(turbo.steps)]
        rows[step] = dict.fromkeys(regions, REUSE)
        plan = dataclasses.replace(like, streams={"main": tuple(rows)}, max_age=1, max_variants=3)
        x = states[step - 1]
        with turbo4d.session(turbo.network, plan=plan) as run:
            denoiser = guided_denoiser(turbo.network, asset.conditioning, GUIDER, sigmas)
            for later in range(step - 1, turbo.steps):
                run.step(later)
                x = _after(x, denoiser(x, later), later, sigmas)
        apart = math.log(sigmas[step - 1] / sigmas[step])
        found.append(float((x - states[-1]).norm() / states[-1].norm()) / apart)
    return found


def _after(x: Tensor, denoised: Tensor, step: int, sigmas: Tensor) -> Tensor:
    """One step of Euler's method."""
    return x + (x - denoised) / sigmas[step] * (sigmas[step + 1] - sigmas[step])


def measure(
    model: LoadedModel, scenes: Sequence[int], steps: int, kinds: Sequence[str]
) -> dict[str, Any]:
    """Medians over the scenes, with what they depend on."""
    turbo = Turbo(model, steps, {"plan": "exact"})
    columns: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    for scene in scenes:
        rendered = render_scene(
            scene, "validation", views=model.config.views or 0, frames=model.config.frames or 0
        )
        asset = prepare(model, scene_input(rendered), seed=scene)
        states = states_of(model, asset, steps)
        turbo.sample(asset)
        for kind in kinds:
            regions = reusable(turbo.regions, (kind,))
            columns[kind].append(
                densities(turbo, asset, states, [name for own in regions.values() for name in own])
            )
            print(f"scene {scene}, {kind}", file=sys.stderr, flush=True)
    levels = edm_sigmas(steps)[:-1].log().tolist()
    middles = [round((high + low) / 2, 3) for high, low in pairwise(levels)]
    return {
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        "split": "validation",
        "scenes": list(scenes),
        "steps": steps,
        "device": device_name(torch.device("cpu")),
        "torch": torch.__version__,
        "commit": commit(),
        "ln_sigma": middles,
        "density": {
            kind: [round(statistics.median(cells), 6) for cells in zip(*rows, strict=True)]
            for kind, rows in columns.items()
        },
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--scenes", type=scene_numbers, default=(0, 1, 2, 3))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {','.join(KINDS)}")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    model = load_model("nano", args.checkpoint, torch.float32, torch.device("cpu"))
    found = measure(model, args.scenes, args.steps, args.kinds.split(","))
    print("ln_sigma  " + "  ".join(f"{kind:>9}" for kind in found["density"]))
    for at, middle in enumerate(found["ln_sigma"]):
        cells = "  ".join(f"{column[at]:9.6f}" for column in found["density"].values())
        print(f"{middle:8.3f}  {cells}")
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
