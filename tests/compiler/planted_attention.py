"""Attention modules of planted networks: how they are written, their projections and norms."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from tests.compiler.planted_spellings import GROUPED, HEADS, MASKED, ROPES, SPELLINGS

NORMS = ("none", "layer", "rms", "across", "unit")
PROJECTIONS = ("apart", "chunk", "unbind", "split", "by_head", "grouped")


@dataclass(frozen=True)
class Written:
    """How one attention is written."""

    spelling: str = "sdpa"
    projection: str = "apart"
    rope: str = "none"
    norm: str = "none"

    @property
    def masked(self) -> str:
        """The word for it, "" where every key is looked at."""
        return MASKED.get(self.spelling, "")


PLAIN = Written()


class Dot(nn.Module):
    """Attention itself, as a module, so that it has a cost."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.dot = {**SPELLINGS, **GROUPED}[spelling]

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.dot(q, k, v)


class Projections(nn.Module):
    """Queries, keys and values [G, L, N, D] from one fused projection or from several."""

    def __init__(self, how: str, channels: int, context: int) -> None:
        super().__init__()
        self.how, self.fused = how, how not in ("apart", "grouped")
        self.d = channels // HEADS
        ends = 3 * channels if self.fused and context == channels else channels
        self.q = nn.Linear(channels, ends)
        # Keys and values from elsewhere are two parts of one projection, or apart.
        side = self.d if how == "grouped" else channels
        self.k = self.v = None
        if ends == channels:
            self.k = nn.Linear(context, 2 * side if self.fused else side)
            self.v = None if self.fused else nn.Linear(context, side)

    def forward(self, x: Tensor, keys: Tensor) -> tuple[Tensor, ...]:
        if self.k is None:
            return self._apart(self.q(x), 3)
        q = self.q(x).unflatten(-1, (HEADS, self.d))
        if self.v is None:
            return q, *self._apart(self.k(keys), 2)
        return q, *(part(keys).unflatten(-1, (-1, self.d)) for part in (self.k, self.v))

    def _apart(self, y: Tensor, count: int) -> tuple[Tensor, ...]:
        if self.how == "by_head":
            return y.unflatten(-1, (HEADS, count * self.d)).split(self.d, dim=-1)
        if self.how == "unbind":
            groups, length, _ = y.shape
            return y.view(groups, length, count, HEADS, self.d).permute(2, 0, 1, 3, 4).unbind(0)
        sides = [HEADS * self.d] * count
        parts = y.chunk(count, dim=-1) if self.how == "chunk" else y.split(sides, dim=-1)
        return tuple(part.unflatten(-1, (HEADS, self.d)) for part in parts)


class Attention(nn.Module):
    """Norm, projections, attention, projection.

    Args:
        how: it is written.
        channels: of the stream.
        context: channels of what the keys come from.
    """

    def __init__(self, how: Written, channels: int, context: int) -> None:
        super().__init__()
        self.how = how
        self.dot = Dot(how.spelling)
        self.project, self.out = (
            Projections(how.projection, channels, context), nn.Linear(channels, channels),
        )  # fmt: skip
        kept = {"layer": nn.LayerNorm(channels // HEADS), "rms": nn.RMSNorm(channels // HEADS)}
        kept["across"] = nn.RMSNorm(channels)
        self.norm_qk = kept.get(how.norm)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        q, k, v = self.project(x, x if context is None else context)
        q, k = self._normed(q), self._normed(k)
        if context is None:
            q, k = ROPES[self.how.rope](q), ROPES[self.how.rope](k)
        return self.out(self.dot(q, k, v).flatten(2))

    def _normed(self, x: Tensor) -> Tensor:
        if self.how.norm == "unit":
            return F.normalize(x, dim=-1)
        if self.how.norm == "across" and self.norm_qk is not None and x.shape[2] == HEADS:
            return self.norm_qk(x.flatten(2)).view(x.shape)
        per_head = self.norm_qk is not None and self.how.norm != "across"
        return self.norm_qk(x) if per_head and self.norm_qk is not None else x
