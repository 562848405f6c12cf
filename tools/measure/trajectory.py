"""Measures the paths of the regions' values over the noise levels: runtime/trajectory.py's POINTS.

What the regions of one kind give is taken at every step of uncached runs on validation scenes. From
the mean of its scalar products over the scenes follow points in a few dimensions, whose distances
are the values'.

Example:
    python tools/measure/trajectory.py --scenes 0-3 --out tools/results/trajectory-nano-v1.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from turbo4d.compiler.backend import build_engine, build_prologue
from turbo4d.compiler.lower import get_lowering
from turbo4d.models.scenes import render_scene
from turbo4d.models.schedule import edm_sigmas
from turbo4d.runtime.policy import KINDS, reusable
from turbo4d.runtime.variant_key import VariantKey
from turbo4d.tools.asset import prepare
from turbo4d.tools.environment import commit, device_name
from turbo4d.tools.load_model import LoadedModel, load_model
from turbo4d.tools.options import scene_numbers
from turbo4d.tools.sampling import Turbo
from turbo4d.tools.scene_input import scene_input

DIMENSIONS = 8


class Recorded(Turbo):
    """The network with every region computed; keeps what those of each kind give at each call.

    Args:
        model: the network.
        steps: of the schedule.
        kinds: of region.

    Attributes:
        values: per kind, one per call [N].
    """

    def __init__(self, model: LoadedModel, steps: int, kinds: Sequence[str]) -> None:
        super().__init__(model, steps, {"plan": "exact"})
        self.values: dict[str, list[Tensor]] = {kind: [] for kind in kinds}

    def _backend(self, gm: torch.fx.GraphModule, inputs: Sequence[Any]) -> Any:
        built = super()._backend(gm, inputs)
        if built.analysis is None:
            raise ValueError("measure-trajectory: the network has no regions")
        regions = [region.info for region in built.analysis.regions]
        kinds = {kind: reusable(regions, (kind,)) for kind in self.values}
        named = {kind: {name for own in by.values() for name in own} for kind, by in kinds.items()}
        key = VariantKey((), tuple(sorted(set[str]().union(*named.values()))), exact=True)
        engine = build_engine(built.analysis, get_lowering("eager"), key)
        prologue = build_prologue(built.analysis)
        runner = built.call

        def call(*args: Tensor) -> Sequence[Tensor]:
            _, values = engine(args, prologue(args), ())
            for kind, names in named.items():
                own = [
                    v.flatten() for v, of in zip(values, engine.writes, strict=True) if of in names
                ]
                self.values[kind].append(torch.cat(own))
            return runner(*args)

        built.call = call
        return built


def paths(turbo: Recorded, model: LoadedModel, scenes: Sequence[int]) -> dict[str, Tensor]:
    """Per kind the points [steps, DIMENSIONS], in units of the last value's length."""
    products = {kind: torch.zeros(turbo.steps, turbo.steps).double() for kind in turbo.values}
    for scene in scenes:
        rendered = render_scene(
            scene, "validation", views=model.config.views or 0, frames=model.config.frames or 0
        )
        for calls in turbo.values.values():
            calls.clear()
        turbo.sample(prepare(model, scene_input(rendered), seed=scene))
        for kind, calls in turbo.values.items():
            values = torch.stack(calls[-turbo.steps :]).double()
            products[kind] += values @ values.T / values[-1].square().sum() / len(scenes)
        print(f"scene {scene}", file=sys.stderr, flush=True)
    return {kind: _points(found) for kind, found in products.items()}


def _points(products: Tensor) -> Tensor:
    """Points with these scalar products, as near as DIMENSIONS allow."""
    sizes, axes = torch.linalg.eigh(products)
    return (axes * sizes.clamp(min=0).sqrt()).flip(-1)[:, :DIMENSIONS]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=scene_numbers, default=(0, 1, 2, 3))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {','.join(KINDS)}")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    model = load_model("nano", None, torch.float32, torch.device("cpu"))
    points = paths(Recorded(model, args.steps, args.kinds.split(",")), model, args.scenes)
    levels = edm_sigmas(args.steps)[:-1].log().tolist()
    found = {
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        "split": "validation",
        "scenes": list(args.scenes),
        "steps": args.steps,
        "device": device_name(torch.device("cpu")),
        "torch": torch.__version__,
        "commit": commit(),
        "ln_sigma": [round(level, 3) for level in levels],
        "points": {
            kind: [[round(value, 6) for value in point] for point in path.tolist()]
            for kind, path in points.items()
        },
    }
    for kind, path in found["points"].items():
        print(f'    "{kind}": (')
        for level, point in zip(found["ln_sigma"], path, strict=True):
            print(f"        ({level}, ({', '.join(map(str, point))})),")
        print("    ),")
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
