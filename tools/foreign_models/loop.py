"""A plain sampling loop for a foreign denoiser: Euler's, from one timestep to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from turbo4d.runtime.session import Session
from turbo4d.tools.foreign_models import Foreign

import turbo4d

TIMESTEPS = tuple(float(timestep) for timestep in range(1000, 0, -50))
"""Twenty whole numbers, as a model that takes integers and one that takes floats are fed alike."""


def sample_plain(foreign: Foreign) -> Tensor:
    """The final latent of the module as it is."""
    return _sample(foreign, foreign.module, lambda step: None)


def sample_turbo(foreign: Foreign, fast: Callable[..., Any], plan: str) -> tuple[Tensor, Session]:
    """The final latent under a plan, and the session that it was sampled in.

    Args:
        foreign: whose inputs.
        fast: its module, compiled by turbo4d.
        plan: a preset's name.
    """
    with turbo4d.session(fast, levels=TIMESTEPS, level_unit="timestep", plan=plan) as run:
        return _sample(foreign, fast, run.step), run


def _sample(foreign: Foreign, denoiser: Callable[..., Any], say: Callable[[int], None]) -> Tensor:
    latent: Tensor = foreign.inputs[foreign.sample].clone()
    following: Sequence[float] = (*TIMESTEPS[1:], 0.0)
    with torch.no_grad():
        for step, (now, then) in enumerate(zip(TIMESTEPS, following, strict=True)):
            say(step)
            slope: Tensor = denoiser(**foreign.call(latent, now))[0]
            # A model may give a variance beside the noise, or take an image beside the latent.
            sides = zip(slope.shape, latent.shape, strict=True)
            common = tuple(slice(min(made, given)) for made, given in sides)
            latent[common] += (then - now) / 1000 * slope[common]
    return latent
