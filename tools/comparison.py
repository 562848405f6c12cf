"""`generate --compare`: baseline and turbo in turn on every scene, then controls, then figures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from turbo4d.tools.asset import Asset, decode
from turbo4d.tools.control import time_controls
from turbo4d.tools.fidelity import object_mask, of_trivial, to_reference, to_truth
from turbo4d.tools.load_model import LoadedModel
from turbo4d.tools.sampling import Turbo, sample_plain
from turbo4d.tools.scene_input import SceneInput
from turbo4d.tools.timing import Timed, alternate, timed


@dataclass(frozen=True)
class SceneResult:
    """One scene's images, and its row of the report."""

    asset: Asset
    images: Mapping[str, Tensor]  # baseline, turbo, control and ground_truth [V, F, 3, H, W]; mask
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Every scene's result, and what they share."""

    scenes: Sequence[SceneResult]
    first_turbo_s: float  # the run that compiled
    control_steps: int
    control_solver: str
    session: Mapping[str, Any]  # the report of turbo's last session


def compare(
    model: LoadedModel,
    turbo: Turbo,
    assets: Sequence[Asset],
    runs: int,
    device: torch.device,
    say: Callable[[str], None],
) -> Comparison:
    """Time and judge turbo against the uncached network, scene by scene.

    Args:
        model: the network.
        turbo: the same network, compiled.
        assets: one per scene.
        runs: timed runs of each side.
        device: of the network.
        say: told what is going on.
    """
    say("compiling")
    _, first_turbo_s = timed(lambda: turbo.sample(assets[0]), device)
    say("warming up")
    sample_plain(model, assets[0], turbo.steps)
    pairs = [_pair(model, turbo, asset, runs, device, say) for asset in assets]
    session = turbo.report or {}
    turbo_s, baseline_s = (
        statistics.median(pair[side].timing.median for pair in pairs)
        for side in ("turbo", "baseline")
    )
    count, controls = time_controls(
        model, assets, turbo_s, baseline_s, turbo.steps, runs, device, say
    )
    say("decoding")
    judged = [
        _judge(model, asset, {**pair, **control})
        for asset, pair, control in zip(assets, pairs, controls, strict=True)
    ]
    solver = _better(judged, sorted(controls[0]))
    return Comparison(
        [SceneResult(asset, _images(images, solver), row) for asset, images, row in judged],
        first_turbo_s, count, solver, session,
    )  # fmt: skip


def _pair(
    model: LoadedModel,
    turbo: Turbo,
    asset: Asset,
    runs: int,
    device: torch.device,
    say: Callable[[str], None],
) -> dict[str, Timed]:
    jobs = {
        "baseline": lambda: sample_plain(model, asset, turbo.steps),
        "turbo": lambda: turbo.sample(asset),
    }
    return alternate(jobs, runs, device, lambda text: say(f"{asset.scene.name}, {text}"))


Judged = tuple[Asset, dict[str, Tensor], dict[str, Any]]


def _judge(model: LoadedModel, asset: Asset, timed: Mapping[str, Timed]) -> Judged:
    images = {name: decode(model, one.result) for name, one in timed.items()}
    mask = object_mask(asset.scene, images["baseline"])
    images["mask"] = mask
    truth = asset.scene if model.shows_scenes else None
    figures = {name: _figures(truth, images, name, one) for name, one in timed.items()}
    turbo, baseline = figures["turbo"], figures["baseline"]
    row = {
        "scene": asset.scene.index,
        "name": asset.scene.name,
        "speedup": baseline["seconds"] / turbo["seconds"],
        "baseline": baseline,
        "turbo": turbo,
        "controls": {name: figures[name] for name in sorted(set(timed) - {"baseline", "turbo"})},
        "trivial": of_trivial(truth),
    }
    if asset.scene.truth is not None:
        images["ground_truth"] = asset.scene.truth
    return asset, images, row


def _figures(
    truth: SceneInput | None, images: Mapping[str, Tensor], name: str, one: Timed
) -> dict[str, Any]:
    low, high = one.timing.spread
    figures = {
        "seconds": one.timing.median,
        "fastest_s": low,
        "slowest_s": high,
        "repeats": one.repeats,
        **to_truth(images[name], truth),
    }
    if name != "baseline":
        figures |= to_reference(images[name], images["baseline"], images["mask"])
    return figures


def _better(judged: Sequence[Judged], solvers: Sequence[str]) -> str:
    return max(
        solvers,
        key=lambda solver: statistics.median(
            row["controls"][solver]["psnr_mask_db"] for _, _, row in judged
        ),
    )


def _images(images: Mapping[str, Tensor], solver: str) -> dict[str, Tensor]:
    kept = ("baseline", "turbo", "ground_truth", "mask")
    return {name: images[name] for name in kept if name in images} | {"control": images[solver]}
