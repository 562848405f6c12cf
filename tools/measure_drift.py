"""Measures what reusing the step before costs nano, per noise level: runtime/policy.py's DRIFT.

At each step of an otherwise uncached run on validation scenes, the network's guided output of the
step before is used again. The figure is the relative error (L2) of the final latent, divided by the
distance of the two levels in ln(sigma).

Example:
    python tools/measure_drift.py --scenes 0-3 --out tools/results/drift-nano-v1.json
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from turbo4d.models.sampler import guided_denoiser
from turbo4d.models.scenes import render_scene
from turbo4d.models.schedule import edm_sigmas, v_scaling
from turbo4d.tools.asset import prepare
from turbo4d.tools.environment import commit, device_name
from turbo4d.tools.load_model import LoadedModel, load_model
from turbo4d.tools.options import scene_numbers
from turbo4d.tools.sampling import GUIDER
from turbo4d.tools.scene_input import scene_input


@torch.no_grad()
def densities(model: LoadedModel, scene: int, steps: int) -> list[float]:
    """Final error per unit of ln(sigma), of a reuse at each step but the first [steps - 1]."""
    rendered = render_scene(
        scene, "validation", views=model.config.views or 0, frames=model.config.frames or 0
    )
    asset = prepare(model, scene_input(rendered), seed=scene)
    sigmas = edm_sigmas(steps)
    scaling = v_scaling(sigmas[:-1])
    denoiser = guided_denoiser(model.network, asset.conditioning, GUIDER, sigmas)

    def after(x: Tensor, denoised: Tensor, step: int) -> Tensor:
        return x + (x - denoised) / sigmas[step] * (sigmas[step + 1] - sigmas[step])

    def finish(x: Tensor, step: int) -> Tensor:
        for later in range(step, steps):
            x = after(x, denoiser(x, later), later)
        return x

    states, outputs = [asset.noise * (1.0 + sigmas[0] ** 2).sqrt()], []
    for step in range(steps):
        denoised = denoiser(states[-1], step)
        # Guidance is linear in the outputs, so the guided output is what gives the guided latent.
        outputs.append((denoised - states[-1] * scaling.c_skip[step]) / scaling.c_out[step])
        states.append(after(states[-1], denoised, step))

    found = []
    for step in range(1, steps):
        x = states[step]
        reused = x * scaling.c_skip[step] + outputs[step - 1] * scaling.c_out[step]
        error = finish(after(x, reused, step), step + 1) - states[-1]
        apart = math.log(sigmas[step - 1] / sigmas[step])
        found.append(float(error.norm() / states[-1].norm()) / apart)
    return found


def measure(model: LoadedModel, scenes: Sequence[int], steps: int) -> dict[str, Any]:
    """Medians over the scenes, with what they depend on."""
    rows = [densities(model, scene, steps) for scene in scenes]
    levels = edm_sigmas(steps)[:-1].log().tolist()
    return {
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        "split": "validation",
        "scenes": list(scenes),
        "steps": steps,
        "device": device_name(torch.device("cpu")),
        "torch": torch.__version__,
        "commit": commit(),
        "drift": [
            {"ln_sigma": round((high + low) / 2, 3), "density": round(statistics.median(column), 6)}
            for high, low, column in zip(levels, levels[1:], zip(*rows, strict=True), strict=False)
        ],
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--scenes", type=scene_numbers, default=(0, 1, 2, 3))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    model = load_model("nano", args.checkpoint, torch.float32, torch.device("cpu"))
    found = measure(model, args.scenes, args.steps)
    for point in found["drift"]:
        print(f"{point['ln_sigma']:8.3f} {point['density']:10.6f}")
    args.out.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
