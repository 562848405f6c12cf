"""One asset to sample: its conditioning and its noise; and the way back from latent to images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from turbo4d.models.branches import Branches
from turbo4d.models.conditioning import build_conditioning
from turbo4d.models.config import SV4DConfig
from turbo4d.models.example_inputs import example_inputs
from turbo4d.models.vae import DOWNSCALE, LATENT_CHANNELS, NanoVAE
from turbo4d.tools.scene_input import SceneInput


class Sampled(Protocol):
    """A model of the SV4D family that can be sampled: loaded, or from a bundle."""

    @property
    def name(self) -> str:
        """What --model calls it."""
        ...

    @property
    def config(self) -> SV4DConfig:
        """Of the network; frames and views are set."""
        ...

    @property
    def vae(self) -> NanoVAE:
        """On the network's device, in float32."""
        ...

    @property
    def weights(self) -> str:
        """What is known of them."""
        ...

    @property
    def weights_sha256(self) -> str:
        """Their digest."""
        ...

    @property
    def shows_scenes(self) -> bool:
        """Whether a sample can be judged against its scene."""
        ...

    @property
    def device(self) -> torch.device:
        """Of the network."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the network."""
        ...


@dataclass(frozen=True)
class Asset:
    """What one sampling run needs; V views, F frames."""

    scene: SceneInput
    conditioning: Branches
    noise: Tensor  # [F*V, 4, h, w], standard normal, image order (f v), float32


def image_size(model: Sampled) -> int:
    """Side of the images in pixels."""
    return model.config.latent_size * DOWNSCALE


@torch.no_grad()
def prepare(model: Sampled, scene: SceneInput, seed: int) -> Asset:
    """Encode a scene and draw its noise.

    A network that shows no scenes may want conditioning of any width, so it gets random
    conditioning.

    Args:
        model: to be sampled; its dtype becomes the conditioning's.
        scene: of the model's views, frames and size.
        seed: of the noise.
    """
    if model.shows_scenes:
        conditioning = _encoded(model, scene)
    else:
        conditioning = _drawn(model, seed)
    frames, views, side = len(scene.frames), len(scene.views), model.config.latent_size
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(frames * views, LATENT_CHANNELS, side, side, generator=generator)
    return Asset(scene, conditioning.to(model.device, model.dtype), noise.to(model.device))


def _encoded(model: Sampled, scene: SceneInput) -> Branches:
    device = next(model.vae.parameters()).device
    c, uc = build_conditioning(
        model.vae.encode(scene.frames.to(device))[None],
        model.vae.encode(scene.views.to(device))[None],
        scene.polar_rad.to(device),
        scene.azimuth_rad.to(device),
    )
    return Branches(c, uc, len(scene.frames), len(scene.views))


def _drawn(model: Sampled, seed: int) -> Branches:
    config = model.config
    drawn = example_inputs(config, branches=1, seed=seed)
    c = {
        "concat": drawn["x"][:, LATENT_CHANNELS:],
        "cond_motion": drawn["cond_motion"],
        "cond_view": drawn["cond_view"],
        "crossattn": drawn["context"],
        "vector": drawn["y"],
    }
    uc = {key: torch.zeros_like(value) for key, value in c.items()}
    return Branches(c, uc, config.frames or 0, config.views or 0)


@torch.no_grad()
def decode(model: Sampled, latent: Tensor) -> Tensor:
    """Images [V, F, 3, H, W] in [0, 1], float32 on the CPU, of a latent [F*V, 4, h, w]."""
    grid = latent.float().unflatten(0, (-1, model.config.views or 1)).transpose(0, 1)
    return model.vae.decode(grid).cpu()
