"""What suite `peers` samples: a network, its scheduler, its guidance, and noise to begin from.

The loops are those of the pipelines of `diffusers`: both branches of the guidance in one call, one
after the other (Wan), or none (HunyuanVideo, whose guidance is distilled).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor, nn
from turbo4d.runtime.levels import LevelUnit

from .networks import network

Branches = Literal["together", "apart", "one"]
STEPS = 20
GUIDANCE = 3.0
# What another prompt or image changes; sizes, masks and strengths stay.
_PROMPT = ("encoder_hidden_states", "pooled_projections")
_FLOW = ("wan", "hunyuan_video", "ltx_video")


@dataclass(frozen=True)
class Example:
    """What one sample is made from.

    Args:
        noise: the first latent, for one of the guidance's branches.
        conditioning: keyword arguments of the network that stay the same at each step.
        image: SVD's latent of the image, at each step beside the latent.
    """

    noise: Tensor
    conditioning: Mapping[str, Any]
    image: Tensor | None


@dataclass(frozen=True)
class Case:
    """A network as it is sampled.

    Args:
        model: its name in `foreign_models`.
        size: "tiny" or "mid".
        network: in eval mode.
        scheduler: of `diffusers`, made for `STEPS` steps.
        branches: how the guidance calls it.
        sample: name of the latent among its arguments.
        channels: axis of the latent's channels.
        positional: whether latent and timestep are given by place, as the UNets' pipelines do.
        level_unit: of the scheduler's timesteps.
        geometry: of one call.
    """

    model: str
    size: str
    network: nn.Module
    scheduler: Any
    branches: Branches
    sample: str
    channels: int
    positional: bool
    level_unit: LevelUnit
    geometry: Mapping[str, int]

    def example(self, seed: int) -> Example:
        """Noise and conditioning of a seed."""
        own: Any = self.network.turbo4d_inputs
        given: dict[str, Any] = dict(own()[1])
        latent: Tensor = given.pop(self.sample)
        given.pop("timestep")
        if self.model == "svd":
            latent = latent.narrow(self.channels, 0, latent.shape[self.channels] // 2)
        if self.branches == "together":
            latent = latent[: len(latent) // 2]
        elif self.branches == "apart":
            latent = latent[:1]
            given = {name: _both(value) for name, value in given.items()}
        for name in _PROMPT:
            if name in given:
                given[name] = _drawn(name, given[name].shape, seed)
        image = None
        if self.model == "svd":
            image = _drawn("image", latent.shape, seed)
            image = torch.cat([torch.zeros_like(image), image])
        return Example(_drawn("noise", latent.shape, seed), given, image)

    @property
    def levels(self) -> tuple[float, ...]:
        """The scheduler's timesteps, falling."""
        return tuple(float(timestep) for timestep in self.scheduler.timesteps)


def case(model: str, size: str) -> Case:
    """A network of `networks` in its own sampling loop."""
    module = network(model, size)
    own: Any = module.turbo4d_inputs
    inputs = own()[1]
    sample = "sample" if "sample" in inputs else "hidden_states"
    batch = len(inputs[sample])
    branches: Branches = {"wan": "apart", "hunyuan_video": "one"}.get(model, "together")  # type: ignore[assignment]
    if branches == "apart" and batch == 2:
        batch = 1
    return Case(
        model,
        size,
        module,
        _scheduler(model),
        branches,
        sample,
        channels=2 if model in ("svd", "cogvideox") else 1,
        positional=model in ("stable_diffusion", "svd"),
        level_unit=_level_unit(model),
        geometry=_geometry(model, inputs, sample, batch),
    )


def _level_unit(model: str) -> LevelUnit:
    if model == "svd":
        return "c_noise"
    return "flow_timestep" if model in _FLOW else "timestep"


def _scheduler(model: str) -> Any:
    diffusers: Any = import_module("diffusers")
    if model == "svd":
        made = diffusers.EulerDiscreteScheduler(
            prediction_type="v_prediction",
            use_karras_sigmas=True,
            timestep_type="continuous",
            timestep_spacing="leading",
            sigma_min=0.002,
            sigma_max=700.0,
        )
    elif model in _FLOW:
        made = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    elif model == "cogvideox":
        made = diffusers.CogVideoXDDIMScheduler(
            prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True
        )
    else:
        made = diffusers.DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        )
    made.set_timesteps(STEPS)
    return made


def _geometry(model: str, inputs: Mapping[str, Any], sample: str, batch: int) -> dict[str, int]:
    if model == "stable_diffusion":
        return {"batch": batch, "frames": 1}
    if model == "ltx_video":
        sides = {name: inputs[name] for name in ("height", "width")}
        return {"batch": batch, "frames": inputs["num_frames"], **sides}
    axis = 1 if model in ("svd", "cogvideox") else 2
    return {"batch": batch, "frames": inputs[sample].shape[axis]}


def _both(value: Any) -> Any:
    """A row for each branch of what the network takes for one."""
    return torch.cat([value[:1], value[:1]]) if isinstance(value, Tensor) else value


def _drawn(name: str, shape: torch.Size, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(f"{name} {seed}".encode()))
    return torch.randn(shape, generator=generator)
