"""Multi-head attention and the gated feed-forward, as every S, C and M block uses them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Attention of a sequence over itself or over a context.

    Args:
        channels: C of the sequence.
        context_channels: of the context; equal to `channels` for self-attention.
        head_channels: D; there are C / D heads and the scale is D ** -0.5.
    """

    def __init__(self, channels: int, context_channels: int, head_channels: int) -> None:
        super().__init__()
        self.head_channels = head_channels
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_channels, channels, bias=False)
        self.to_v = nn.Linear(context_channels, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Attend from `x` [G, L, C] over `context` [G, K, E], or over `x`; returns [G, L, C]."""
        keys = x if context is None else context
        attended = F.scaled_dot_product_attention(
            self._split(self.to_q(x)), self._split(self.to_k(keys)), self._split(self.to_v(keys))
        )
        return self.to_out(attended.transpose(1, 2).reshape(x.shape))

    def _split(self, x: Tensor) -> Tensor:
        groups, length, channels = x.shape
        heads = channels // self.head_channels
        return x.view(groups, length, heads, self.head_channels).transpose(1, 2)


class GatedProjection(nn.Module):
    """Linear C to 2I, one half gated by the exact GELU of the other (Shazeer 2020, GEGLU)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] to [..., I]."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU to 4C, then back to C."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The middle entry holds the place of the public network's dropout, so that keys agree.
        self.net = nn.Sequential(
            GatedProjection(channels, 4 * channels),
            nn.Identity(),
            nn.Linear(4 * channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] to [..., C]."""
        return self.net(x)
