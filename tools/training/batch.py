"""What the nano UNet is trained on: noise levels, inputs and the v-target of a batch of latents."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from turbo4d.models.conditioning import build_conditioning
from turbo4d.models.render import ELEVATION_RAD
from turbo4d.models.schedule import v_scaling

VIEWS, FRAMES = 4, 5
DROPOUT = 0.1  # share of scenes shown without conditioning


def camera_angles() -> tuple[Tensor, Tensor]:
    """Polar and azimuth angles [V] of the scenes' cameras, in radians."""
    polar = torch.full((VIEWS,), math.pi / 2 - ELEVATION_RAD)
    return polar, torch.arange(VIEWS) * (2.0 * math.pi / VIEWS)


def draw_sigma(count: int, generator: torch.Generator) -> Tensor:
    """Noise levels [count]: half log-uniform over [5, 700], half log-normal around 1.

    Above 5 the noisy latent says next to nothing, so that half teaches the regression from the
    conditioning, where 12 of the 20 sampling steps lie. All within [0.002, 700].
    """
    high = math.log(5.0) + torch.rand(count, generator=generator) * math.log(700.0 / 5.0)
    low = torch.randn(count, generator=generator) * 1.5
    pick = torch.rand(count, generator=generator) < 0.5
    return torch.where(pick, high, low).clamp(math.log(0.002), math.log(700.0)).exp()


def network_inputs(
    latents: Tensor, sigma: Tensor, noise: Tensor, drop: Tensor
) -> tuple[tuple[Tensor, ...], Tensor]:
    """The network's inputs and its v-target.

    Args:
        latents: clean, [B, V, F, 4, h, w].
        sigma: one noise level a scene, [B].
        noise: standard normal, [B, F, V, 4, h, w].
        drop: [B] bool, true where the scene is shown without conditioning.

    Returns:
        (x, timesteps, context, y, cond_view) of `SV4DUNet.forward`, and the target
        [B*F*V, 4, h, w].
    """
    clean = latents.transpose(1, 2)
    polar, azimuth = (angle.to(latents.device) for angle in camera_angles())
    c, uc = build_conditioning(latents[:, 0], latents[:, :, 0], polar, azimuth)
    chosen: dict[str, Tensor] = {}
    for key, value in c.items():
        rows = drop.repeat_interleave(value.shape[0] // len(drop))
        chosen[key] = torch.where(rows.view(-1, *[1] * (value.dim() - 1)), uc[key], value)
    scaling = v_scaling(sigma)
    c_skip, c_out, c_in = (
        item.view(-1, 1, 1, 1, 1, 1) for item in (scaling.c_skip, scaling.c_out, scaling.c_in)
    )
    noisy = clean + sigma.view(-1, 1, 1, 1, 1, 1) * noise
    target = ((clean - c_skip * noisy) / c_out).flatten(0, 2)
    x = torch.cat([(c_in * noisy).flatten(0, 2), chosen["concat"]], 1)
    timesteps = scaling.c_noise.repeat_interleave(VIEWS * FRAMES)
    return (x, timesteps, chosen["crossattn"], chosen["vector"], chosen["cond_view"]), target
