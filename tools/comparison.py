"""`generate --compare`: baseline and turbo in turn on every scene, then controls, then figures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from turbo4d.runtime.plan import Plan
from turbo4d.tools.asset import Asset, decode
from turbo4d.tools.control import time_controls
from turbo4d.tools.fidelity import object_mask, of_trivial, to_reference, to_truth
from turbo4d.tools.load_model import LoadedModel
from turbo4d.tools.sampling import SOLVERS, Turbo, sample_plain
from turbo4d.tools.scene_input import SceneInput
from turbo4d.tools.timing import Timed, alternate, timed
from turbo4d.tools.whole_step import computed_steps, fewest_steps, rival_of, whole_step_plans


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
    whole_step_computed: int | None  # computed steps of whole-step reuse, where it was a rival
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
    pairs = [
        alternate(_pair(model, turbo, asset), runs, device, _named(say, asset)) for asset in assets
    ]
    session, plan = turbo.report or {}, turbo.plan
    turbo_s, baseline_s = (
        statistics.median(pair[side].timing.median for pair in pairs)
        for side in ("turbo", "baseline")
    )
    count, controls = time_controls(
        model, assets, turbo_s, baseline_s, turbo.steps, runs, device, say
    )
    everything = [{**pair, **control} for pair, control in zip(pairs, controls, strict=True)]
    rival = _whole_step(model, turbo, assets, pairs, say)
    if rival is not None:
        for asset, found in zip(assets, everything, strict=True):
            job = {"whole_step": partial(turbo.sample, asset, rival)}
            found |= alternate(job, runs, device, _named(say, asset))
    say("decoding")
    judged = [_judge(model, *one) for one in zip(assets, everything, strict=True)]
    solver = _better(judged, sorted(controls[0]))
    turbo.plan = plan
    return Comparison(
        [SceneResult(asset, _images(images, solver), row) for asset, images, row in judged],
        first_turbo_s,
        count,
        solver,
        None if rival is None else computed_steps(rival),
        session,
    )


def _named(say: Callable[[str], None], asset: Asset) -> Callable[[str], None]:
    return lambda text: say(f"{asset.scene.name}, {text}")


def _pair(model: LoadedModel, turbo: Turbo, asset: Asset) -> dict[str, Callable[[], Tensor]]:
    return {
        "baseline": partial(sample_plain, model, asset, turbo.steps),
        "turbo": partial(turbo.sample, asset),
    }


def _whole_step(
    model: LoadedModel,
    turbo: Turbo,
    assets: Sequence[Asset],
    pairs: Sequence[Mapping[str, Timed]],
    say: Callable[[str], None],
) -> Plan | None:
    """The fastest plan of whole-step reuse that keeps turbo's PSNR inside the object."""
    core = None if turbo.plan is None else rival_of(turbo.plan, turbo.regions)
    if turbo.plan is None or core is None:
        return None
    baselines = [decode(model, pair["baseline"].result) for pair in pairs]

    def judge(latents: Sequence[Tensor]) -> float:
        return statistics.median(
            to_reference(decode(model, latent), baseline, object_mask(asset.scene, baseline))[
                "psnr_mask_db"
            ]
            for asset, latent, baseline in zip(assets, latents, baselines, strict=True)
        )

    wanted = judge([pair["turbo"].result for pair in pairs])

    def reaches(plan: Plan) -> bool:
        return judge([turbo.sample(asset, plan) for asset in assets]) >= wanted

    return fewest_steps(whole_step_plans(turbo.plan, core), reaches, say)


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
        "controls": {name: figures[name] for name in SOLVERS},
        "whole_step": figures.get("whole_step"),
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
