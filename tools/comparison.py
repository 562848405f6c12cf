"""`generate --compare`: baseline and turbo in turn on every scene, then controls, then figures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from turbo4d.models.metrics import psnr
from turbo4d.runtime.plan import Plan
from turbo4d.tools.asset import Asset, decode
from turbo4d.tools.control import control_jobs, fitting_steps, settle
from turbo4d.tools.fidelity import (
    object_mask,
    of_trivial,
    refuse_nonfinite,
    to_reference,
    to_truth,
)
from turbo4d.tools.load_model import LoadedModel
from turbo4d.tools.rounds import Rounds
from turbo4d.tools.sampling import SOLVERS, Turbo, sample_plain
from turbo4d.tools.scene_input import SceneInput
from turbo4d.tools.timing import Timed, timed
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
    first, first_turbo_s = timed(partial(turbo.sample, assets[0]), device)
    refuse_nonfinite(sample_plain(model, assets[0], turbo.steps), "the uncached sample")
    refuse_nonfinite(first, "turbo's sample")
    say("warm: one run of each side")
    scouted = [timed(job, device)[1] for job in _pair(model, turbo, assets[0]).values()]
    count = fitting_steps(scouted[1], scouted[0], turbo.steps)
    rounds = Rounds(assets, runs, device, say)
    rounds.run(lambda asset: {**_pair(model, turbo, asset), **control_jobs(model, count, asset)})
    session, plan = turbo.report or {}, turbo.plan
    count = settle(rounds, model, count, turbo.steps)
    rival = _whole_step(model, turbo, rounds)
    turbo.plan = plan
    say("decoding")
    judged = [_judge(model, *one) for one in zip(assets, rounds.found, strict=True)]
    solver = _better(judged)
    return Comparison(
        [SceneResult(asset, _images(images, solver), row) for asset, images, row in judged],
        first_turbo_s,
        count,
        solver,
        None if rival is None else computed_steps(rival),
        session,
    )


def _pair(model: LoadedModel, turbo: Turbo, asset: Asset) -> dict[str, Callable[[], Tensor]]:
    return {
        "baseline": partial(sample_plain, model, asset, turbo.steps),
        "turbo": partial(turbo.sample, asset),
    }


def _whole_step(model: LoadedModel, turbo: Turbo, rounds: Rounds) -> Plan | None:
    """The fastest plan of whole-step reuse that keeps turbo's PSNR, timed beside the baseline."""
    core = None if turbo.plan is None else rival_of(turbo.plan, turbo.regions)
    if turbo.plan is None or core is None:
        return None
    baselines = [decode(model, found["baseline"].result) for found in rounds.found]

    def judge(latents: Iterable[Tensor]) -> float:
        return statistics.median(
            psnr(decode(model, latent), baseline, object_mask(asset.scene, baseline))
            for asset, latent, baseline in zip(rounds.assets, latents, baselines, strict=True)
        )

    wanted = judge(found["turbo"].result for found in rounds.found)

    def reaches(plan: Plan) -> bool:
        return judge(turbo.sample(asset, plan) for asset in rounds.assets) >= wanted

    rival = fewest_steps(whole_step_plans(turbo.plan, core), reaches, rounds.say)
    rounds.run(
        lambda asset: {
            "baseline again": partial(sample_plain, model, asset, turbo.steps),
            "whole_step": partial(turbo.sample, asset, rival),
        }
    )
    return rival


Judged = tuple[Asset, dict[str, Tensor], dict[str, Any]]


def _judge(model: LoadedModel, asset: Asset, found: Mapping[str, Timed]) -> Judged:
    again = found.get("baseline again")
    shown = {name: one for name, one in found.items() if one is not again}
    images = {name: decode(model, one.result) for name, one in shown.items()}
    mask = object_mask(asset.scene, images["baseline"])
    images["mask"] = mask
    truth = asset.scene if model.shows_scenes else None
    figures = {name: _figures(truth, images, name, one) for name, one in shown.items()}
    turbo, baseline = figures["turbo"], figures["baseline"]
    if again is not None:
        whole_step = figures["whole_step"]
        whole_step["speedup"] = again.timing.median / whole_step["seconds"]
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


def _better(judged: Sequence[Judged]) -> str:
    return max(
        SOLVERS,
        key=lambda solver: statistics.median(
            row["controls"][solver]["psnr_mask_db"] for _, _, row in judged
        ),
    )


def _images(images: Mapping[str, Tensor], solver: str) -> dict[str, Tensor]:
    kept = ("baseline", "turbo", "ground_truth", "mask")
    return {name: images[name] for name in kept if name in images} | {"control": images[solver]}
