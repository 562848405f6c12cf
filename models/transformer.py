"""The transformer blocks of an S-C-M module: spatial, and one for camera and motion."""

from __future__ import annotations

from torch import Tensor, nn

from .attention import Attention, FeedForward


class SpatialBlock(nn.Module):
    """Self-attention over the pixels of an image, cross-attention to its context, feed-forward.

    Args:
        channels: C. context_channels: E. head_channels: D.
    """

    def __init__(self, channels: int, context_channels: int, head_channels: int) -> None:
        super().__init__()
        self.attn1 = Attention(channels, channels, head_channels)
        self.ff = FeedForward(channels)
        self.attn2 = Attention(channels, context_channels, head_channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """[G, L, C] and a context [G, K, E] to [G, L, C]."""
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class MixBlock(SpatialBlock):
    """The spatial block with a feed-forward before it: the camera and the motion block."""

    def __init__(self, channels: int, context_channels: int, head_channels: int) -> None:
        super().__init__(channels, context_channels, head_channels)
        self.norm_in = nn.LayerNorm(channels)
        self.ff_in = FeedForward(channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """[G, L, C] and a context [G, K, E] to [G, L, C]."""
        return super().forward(x + self.ff_in(self.norm_in(x)), context)
