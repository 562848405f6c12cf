"""The networks of suite `gpu`: full-size ones drawn on the device, and what a sample of them needs.

Random weights are good for latency and memory alone. They are drawn where they lie: a full-size
network has two thousand million, which a CPU's generator takes a minute for. No layer is left at
zero, since products of zeros draw less power and let the clock run faster.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from turbo4d.models.branches import Branches
from turbo4d.models.config import SV4DConfig
from turbo4d.models.example_inputs import example_inputs
from turbo4d.models.guiders import SpatiotemporalPredictionGuider
from turbo4d.models.nano import load_nano, weights_path
from turbo4d.models.sampler import BeforeStep, guided_denoiser, sample_euler
from turbo4d.models.schedule import edm_sigmas
from turbo4d.models.unet import SV4DUNet

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
GUIDER = SpatiotemporalPredictionGuider(max_scale=2.0, min_scale=1.0)
LATENT_CHANNELS = 4


@dataclass(frozen=True)
class Work:
    """What a row samples.

    Args:
        model: "sv4d", "sv4d2", "sv4d2_8views", "nano" or "tiny".
        device: "cuda" or "cpu".
        dtype: a key of `DTYPES`.
        steps: of the schedule.
        views: V; None for the model's own.
        frames: F; likewise.
        seed: of weights, conditioning and noise.
    """

    model: str
    device: str
    dtype: str
    steps: int
    views: int | None = None
    frames: int | None = None
    seed: int = 0

    @staticmethod
    def of(settings: Mapping[str, Any]) -> Work:
        """The work that a row's settings name."""
        known = {field.name for field in dataclasses.fields(Work)}
        return Work(**{name: value for name, value in settings.items() if name in known})

    @property
    def weights(self) -> str:
        """Where the weights come from."""
        return "trained" if self.model == "nano" else "random"

    @property
    def config(self) -> SV4DConfig:
        """Of the network, with views and frames set."""
        named = SV4DConfig.named(self.model)
        asked = {"views": self.views or named.views, "frames": self.frames or named.frames}
        return dataclasses.replace(named, **asked)


@lru_cache(maxsize=1)
def network(work: Work) -> SV4DUNet:
    """The network on its device; the last one is kept, for the rows of one process."""
    dtype, device = DTYPES[work.dtype], torch.device(work.device)
    if work.model == "nano" and (work.views, work.frames) == (None, None):
        made = load_nano(weights_path())[0].to(device=device, dtype=dtype)
    else:
        made = SV4DUNet(work.config, device=device, dtype=dtype)
        draw_weights(made, work.seed)
    return made.eval().requires_grad_(False)


def draw_weights(module: nn.Module, seed: int) -> None:
    """Gives every parameter numbers of a size that keeps activations near one, on its device."""
    device = next(module.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.normal_(generator=generator)
            if value.dim() > 1:
                value.div_(math.sqrt(value[0].numel()))
            elif name.endswith(".weight"):
                value.mul_(0.1).add_(1.0)
            elif not name.endswith("mix_factor"):
                value.mul_(0.1)


def call_of(work: Work) -> dict[str, Any]:
    """The keyword arguments of one call of the network, both guidance branches in it."""
    drawn = example_inputs(
        work.config, branches=2, seed=work.seed, device=work.device, dtype=DTYPES[work.dtype]
    )
    # A sampler feeds its levels in the latent's dtype, which is float32 whatever the network's.
    return {**drawn, "timesteps": drawn["timesteps"].float()}


@dataclass(frozen=True)
class Start:
    """What a sample begins with.

    Args:
        conditioning: of both branches.
        noise: float32 [F*V, 4, h, w].
    """

    conditioning: Branches
    noise: Tensor


@lru_cache(maxsize=1)
def start_of(work: Work) -> Start:
    """Conditioning and noise; the same numbers on every device."""
    config, device, dtype = work.config, work.device, DTYPES[work.dtype]
    views, frames = config.views or 1, config.frames or 1
    side, images = config.latent_size, views * frames
    generator = torch.Generator().manual_seed(work.seed)
    shapes: Mapping[str, tuple[int, ...]] = {
        "concat": (images, LATENT_CHANNELS, side, side),
        "cond_motion": (frames, config.motion_context_dim, side, side),
        "cond_view": (views, config.motion_context_dim, side, side),
        "crossattn": (1, frames, config.context_dim),
        "vector": (images, config.adm_in_channels),
    }

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    conditional, unconditional = ({n: draw(s) for n, s in shapes.items()} for _ in range(2))
    noise = torch.randn((images, LATENT_CHANNELS, side, side), generator=generator).to(device)
    return Start(Branches(conditional, unconditional, frames, views), noise)


def levels_of(work: Work) -> list[float]:
    """The noise levels of the schedule, the closing zero among them."""
    return edm_sigmas(work.steps).tolist()


def sample(
    denoiser: Callable[..., Tensor], work: Work, before_step: BeforeStep | None = None
) -> Tensor:
    """The latent [F*V, 4, h, w] by Euler's method, guided, one call of the network a step."""
    start = start_of(work)
    sigmas = edm_sigmas(work.steps).to(start.noise)
    guided = guided_denoiser(denoiser, start.conditioning, GUIDER, sigmas)
    return sample_euler(guided, start.noise, sigmas, before_step=before_step)
