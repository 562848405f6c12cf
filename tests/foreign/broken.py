"""A small video UNet whose forward Dynamo cannot trace whole."""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

from tests.compiler.foreign import Attention, sinusoid


class Level(nn.Module):
    """A convolution that takes the embedding, then attention over pixels and text."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.embed = nn.Linear(32, channels)
        self.norm = nn.LayerNorm(channels)
        self.attention = Attention(channels)
        self.cross = Attention(channels, 12)

    def forward(self, x: Tensor, emb: Tensor, text: Tensor) -> Tensor:
        x = x + self.conv(x) + self.embed(emb)[:, :, None, None]
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(self.norm(tokens))
        tokens = tokens + self.cross(tokens, text.repeat_interleave(3, dim=0))
        return x + tokens.transpose(1, 2).view(x.shape)


class BrokenUNet(nn.Module):
    """Two levels with a line on stderr between them, then a number read from a tensor.

    What comes first has the call's inputs; the deep level gets values of the first piece alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(16, 32)
        self.first = nn.Conv2d(4, 16, 3, padding=1)
        self.high = Level(16)
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.low = Level(32)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.last = nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        emb = self.time(sinusoid(timestep.expand(sample.shape[0]), 16).to(sample.dtype))
        skip = self.high(self.first(sample), emb, text)
        print("between the levels", file=sys.stderr)
        deep = self.up(self.low(self.down(skip), emb, text))
        joined = deep + skip
        if joined.abs().amax().item() > 1e6:
            joined = joined / 2
        return self.last(joined)


def broken_unet() -> tuple[BrokenUNet, dict[str, Tensor]]:
    """In eval mode with seeded weights; 2 branches of 3 frames of 8 x 8."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = BrokenUNet().eval()
        text, sample = torch.randn(2, 5, 12), torch.randn(6, 4, 8, 8)
    return module, {"sample": sample, "timestep": torch.tensor([700.0]), "text": text}
