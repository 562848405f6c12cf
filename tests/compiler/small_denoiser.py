"""A denoiser of images of one block, whose forward takes its level as a test wants it."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

C = 16


def sinusoid(level: Tensor) -> Tensor:
    """Of levels [B], as [B, C]."""
    angles = level[:, None].float() * torch.exp(torch.arange(C // 2) * -1.0)
    return torch.cat([angles.cos(), angles.sin()], -1)


class Block(nn.Module):
    """Attention within an image, and a feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.after = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.forth, self.back = nn.Linear(C, 2 * C), nn.Linear(2 * C, C)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.back(F.gelu(self.forth(self.after(x))))


class Small(nn.Module):
    """Takes a sample [B, 4, H, W]; `embed` makes [B, C] of whatever the level is.

    Args:
        checkpoints: whether each block is handed to torch.utils.checkpoint.
        autocasts: dtype of an autocast around the blocks, None for none.
    """

    def __init__(self, checkpoints: bool = False, autocasts: torch.dtype | None = None) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(4, C, 3, padding=1), nn.Conv2d(C, 4, 3, padding=1)
        self.level, self.table = nn.Linear(C, C), nn.Embedding(1000, C)
        self.blocks = nn.ModuleList([Block()])
        self.checkpoints, self.autocasts = checkpoints, autocasts

    def embed(self, x: Tensor, level: Any) -> tuple[Tensor, Tensor]:
        return x, sinusoid(level.expand(x.shape[0]))

    def forward(self, x: Tensor, level: Any) -> Tensor:
        x, embedded = self.embed(x, level)
        h = self.first(x) + self.level(embedded)[:, :, None, None]
        tokens = h.flatten(2).transpose(1, 2)
        with torch.autocast("cpu", self.autocasts) if self.autocasts else nullcontext():
            for block in self.blocks:
                tokens = (
                    checkpoint(block, tokens, use_reentrant=False)
                    if self.checkpoints
                    else block(tokens)
                )
        return self.last(tokens.to(h.dtype).transpose(1, 2).reshape(h.shape))


class AsTensor(Small):
    """torch.tensor of a list of one number."""

    def embed(self, x: Tensor, level: Any) -> tuple[Tensor, Tensor]:
        return x, sinusoid(torch.tensor([level], dtype=x.dtype, device=x.device))


class Filled(Small):
    """torch.full, and the level's own dtype."""

    def embed(self, x: Tensor, level: Any) -> tuple[Tensor, Tensor]:
        return x, sinusoid(torch.full((x.shape[0],), level))


class Scaled(Small):
    """Arithmetic of the number alone, and of it with tensors of several kinds."""

    def embed(self, x: Tensor, level: Any) -> tuple[Tensor, Tensor]:
        x = x / (level**2 + 1) ** 0.5 * (1 - 1 / math.sqrt(level * level + 1)) + level
        return x, sinusoid(torch.ones(x.shape[0]) * level + torch.ones(1, dtype=torch.long) * level)


class Half(Small):
    """Numbers beside values of half precision."""

    def embed(self, x: Tensor, level: Any) -> tuple[Tensor, Tensor]:
        return x / (level**2 + 1) ** 0.5, torch.full((x.shape[0], C), level, dtype=x.dtype)


class Row(Small):
    """A row of a table, by a whole number."""

    def embed(self, x: Tensor, level: Any) -> tuple[Tensor, Tensor]:
        return x, self.table.weight[level][None].expand(x.shape[0], -1)


class Repeated(Small):
    """The number says how many there are of something, which no tensor can say."""

    def embed(self, x: Tensor, level: Any) -> tuple[Tensor, Tensor]:
        return x, sinusoid(torch.arange(level)).sum(0, keepdim=True)


def small(kind: type[Small] = Small, **options: Any) -> Small:
    """One with weights of its own."""
    torch.manual_seed(0)
    return kind(**options).eval().requires_grad_(False)


def sample(seed: int = 0) -> Tensor:
    """[2, 4, 4, 4]"""
    return torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(seed))
