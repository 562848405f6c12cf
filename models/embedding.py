"""Sinusoids, and the small networks that turn a level, a frame or a view into a vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

MAX_PERIOD = 10000


def sinusoid(positions: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """Cosines, then sines, of `positions` at geometrically spaced frequencies.

    Args:
        positions: [N], any float dtype.
        channels: C, even.
        dtype: of the result; float64 computes in float64, anything else in float32.

    Returns:
        [N, C].

    Source: Vaswani et al. 2017, section 3.5, in the cosine-first order of the diffusion UNets.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    half = channels // 2
    ladder = torch.arange(half, dtype=wide, device=positions.device)
    frequencies = torch.exp(ladder * (-math.log(MAX_PERIOD) / half))
    angles = positions.to(wide)[:, None] * frequencies[None]
    return torch.cat((torch.cos(angles), torch.sin(angles)), dim=-1).to(dtype)


def mlp(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    """Linear, SiLU, Linear: `in_channels` to `hidden` to `out_channels`."""
    return nn.Sequential(nn.Linear(in_channels, hidden), nn.SiLU(), nn.Linear(hidden, out_channels))
