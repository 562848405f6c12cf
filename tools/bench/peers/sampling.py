"""The sampling loop of suite `peers`: every system of a case is called from this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .cases import GUIDANCE, STEPS, Case, Example

Before = Callable[[int, Tensor, str], AbstractContextManager[Any]]
"""Is told step, timestep and stream before each call, and gives what the call happens in."""


def sample(
    case: Case,
    denoiser: Callable[..., Any],
    example: Example,
    before: Before = lambda step, timestep, stream: nullcontext(),
) -> Tensor:
    """The final latent.

    Args:
        case: whose scheduler and guidance.
        denoiser: called as the network is.
        example: noise and conditioning.
        before: told of each call before it happens.
    """
    scheduler = case.scheduler
    scheduler.set_timesteps(STEPS)  # also forgets the last run
    streams = _streams(case, example.conditioning)
    with torch.no_grad():
        latent = example.noise * getattr(scheduler, "init_noise_sigma", 1.0)
        for step, timestep in enumerate(scheduler.timesteps):
            given = _given(case, latent, timestep, example.image)
            made: list[Tensor] = []
            for stream, conditioning in streams.items():
                with before(step, timestep, stream):
                    made.append(_call(case, denoiser, given, timestep, conditioning))
            slope = _guided(case, made, latent.shape[case.channels])
            latent = scheduler.step(slope, timestep, latent, return_dict=False)[0]
    return latent


def _streams(case: Case, conditioning: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Per stream, in the order of its calls, what the network is given beside the latent."""
    if case.branches != "apart":
        return {"main": dict(conditioning)}
    return {
        stream: {
            name: value[row : row + 1] if isinstance(value, Tensor) else value
            for name, value in conditioning.items()
        }
        for stream, row in (("cond", 1), ("uncond", 0))
    }


def _given(case: Case, latent: Tensor, timestep: Tensor, image: Tensor | None) -> Tensor:
    given = torch.cat([latent] * 2) if case.branches == "together" else latent
    if hasattr(case.scheduler, "scale_model_input"):
        given = case.scheduler.scale_model_input(given, timestep)
    return given if image is None else torch.cat([given, image], dim=case.channels)


def _call(
    case: Case,
    denoiser: Callable[..., Any],
    given: Tensor,
    timestep: Tensor,
    conditioning: Mapping[str, Any],
) -> Tensor:
    if case.positional:
        return denoiser(given, timestep, **conditioning)[0]
    level = timestep.expand(len(given))
    return denoiser(**{case.sample: given, "timestep": level}, **conditioning)[0]


def _guided(case: Case, made: list[Tensor], channels: int) -> Tensor:
    """One slope of the branches' outputs, without the variance that Latte gives beside it."""
    kept = [each.narrow(case.channels, 0, channels) for each in made]
    if case.branches == "one":
        return kept[0]
    uncond, cond = kept[0].chunk(2) if case.branches == "together" else (kept[1], kept[0])
    return uncond + GUIDANCE * (cond - uncond)
