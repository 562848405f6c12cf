"""From the latents of the input images to what the denoiser is told, with SV4D's roles.

`concat` (b t v) 4 h w: frame t seen from view 0, repeated over the views.
`cond_view` (b v) 4 h w: every view at frame 0.
`cond_motion` (b t) 4 h w: every frame from view 0; no network of the family reads it.
`crossattn` b t 64: frame t from view 0, average-pooled to 4 x 4 and flattened. It stands in for
SV4D's CLIP embedding.
`vector` (b t v) 256: sinusoids of the conditioning noise (64), polar (96) and azimuth (96).

The unconditional branch is the same with everything zeroed but the two angles.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

CONTEXT_GRID = 4
COND_AUG = 1e-5
VECTOR_CHANNELS = (64, 96, 96)  # cond_aug, polar, azimuth

Conditioning = dict[str, Tensor]


def sinusoid(values: Tensor, channels: int, max_period: float = 10000.0) -> Tensor:
    """Cosines, then sines, [..., channels] of `values` [...], as the UNet's time embedding."""
    half = channels // 2
    steps = torch.arange(half, dtype=values.dtype, device=values.device)
    angles = values[..., None] * torch.exp(-math.log(max_period) * steps / half)
    return torch.cat([torch.cos(angles), torch.sin(angles)], -1)


def build_conditioning(
    frames: Tensor, reference_views: Tensor, polar_rad: Tensor, azimuth_rad: Tensor
) -> tuple[Conditioning, Conditioning]:
    """Builds both branches of the conditioning.

    Args:
        frames: latents [B, F, 4, h, w] of the input video: view 0 at every frame.
        reference_views: latents [B, V, 4, h, w] of every view at frame 0.
        polar_rad: [V] camera angles from the vertical.
        azimuth_rad: [V] camera angles relative to view 0.

    Returns:
        `c` and `uc`, each with the keys of the table above; image order (b t v).

    Raises:
        ValueError: the batch sizes or the number of angles disagree.
    """
    batch, count = frames.shape[:2]
    views = reference_views.shape[1]
    if reference_views.shape[0] != batch:
        raise ValueError(
            f"conditioning: {batch} input videos but {reference_views.shape[0]} sets of reference "
            "views; give one set per video."
        )
    if polar_rad.shape != (views,) or azimuth_rad.shape != (views,):
        raise ValueError(
            f"conditioning: {views} views but angles of shape {tuple(polar_rad.shape)} and "
            f"{tuple(azimuth_rad.shape)}; give one angle per view."
        )
    angles = torch.cat(
        [
            sinusoid(polar_rad.to(frames), VECTOR_CHANNELS[1]),
            sinusoid(azimuth_rad.to(frames), VECTOR_CHANNELS[2]),
        ],
        -1,
    ).repeat(batch * count, 1)
    noise = sinusoid(frames.new_full((1,), COND_AUG), VECTOR_CHANNELS[0]).expand(
        angles.shape[0], -1
    )
    pooled = F.adaptive_avg_pool2d(frames.flatten(0, 1), CONTEXT_GRID)
    c = {
        "crossattn": pooled.reshape(batch, count, -1),
        "vector": torch.cat([noise, angles], -1),
        "concat": frames.flatten(0, 1).repeat_interleave(views, 0),
        "cond_view": reference_views.flatten(0, 1),
        "cond_motion": frames.flatten(0, 1),
    }
    uc = {key: torch.zeros_like(value) for key, value in c.items()}
    uc["vector"] = torch.cat([torch.zeros_like(noise), angles], -1)
    return c, uc
