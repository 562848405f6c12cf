"""A small denoiser with everything the passes look for, and its parts computed by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attend(nn.Module):
    """Norm, projections, attention of two heads, projection: the residual of one block."""

    def __init__(self, channels: int, context: int, *, key_norm: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.q = nn.Linear(channels, channels, bias=False)
        self.k = nn.Linear(context, channels, bias=False)
        self.v = nn.Linear(context, channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """[B, S, C] and [B, K, E] to [B, S, C]."""
        query = self.norm(x)
        keys = query if context is None else context
        heads = [p(t).unflatten(-1, (2, -1)).transpose(1, 2)
                 for p, t in ((self.q, query), (self.k, keys), (self.v, keys))]  # fmt: skip
        return self.out(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))


class Stream(nn.Module):
    """in -> x + first(x) -> x + cross(x, context) -> out."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(4, 8)
        self.first = Attend(8, 8)
        self.cross = Attend(8, 6)
        self.out = nn.Linear(8, 4)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """[B, S, 4] and [B, K, 6] to [B, S, 4]."""
        hidden = self.into(x)
        hidden = hidden + self.first(hidden)
        hidden = hidden + self.cross(hidden, context)
        return self.out(hidden)


def make_stream(
    keys: int = 1, dtype: torch.dtype = torch.float64
) -> tuple[Stream, tuple[Tensor, Tensor]]:
    """A stream with random weights, and inputs whose context has `keys` keys."""
    torch.manual_seed(0)
    model = Stream().to(dtype).eval()
    return model, (torch.randn(2, 5, 4, dtype=dtype), torch.randn(2, keys, 6, dtype=dtype))
