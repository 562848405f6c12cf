"""The modules of planted networks: residual convolutions, attention of all layouts, levels.

Each asks a `Visitor` at each region that it is, so that a plan can be carried out by the modules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.compiler.planted_attention import PLAIN, Attention, Written

C, TEXT, WORDS, B, V, FRAMES = 8, 6, 3, 1, 2, 3
# Which axes are the sequence of an attention.
SEQUENCES = {"spatial": "S", "camera": "V", "motion": "F", "joint": "FVS"}
Run = Callable[[Tensor], Tensor]
Modulated = Callable[[nn.Module, Tensor], Tensor]
Style = Literal["plain", "ff_in", "blend", "modulated", "parallel", "scaled"]


@dataclass(frozen=True)
class Block:
    """One attention: `x + attn + [cross] + ff`, that after a feed-forward, or blended with x.

    Modulated, each norm has a shift and a scale, and each residual a gate, made of the text.
    Parallel, attention and feed-forward read one norm. Scaled, each residual comes by half.
    """

    kind: str
    style: Style = "plain"
    cross: bool = False
    how: Written = PLAIN


@dataclass(frozen=True)
class Chain:
    """Blocks inside a residual of linears or convolutions; or one block, straight on the stream."""

    blocks: tuple[Block, ...]
    wrap: Literal["linear", "conv", "none"] = "linear"


@dataclass(frozen=True)
class Body:
    """What happens at one resolution, and below it: parts, a lower level, parts."""

    before: tuple[Chain | None, ...]  # None is a residual of convolutions
    lower: Body | None = None
    skip: Literal["cat", "add", "none"] = "cat"
    after: tuple[Chain | None, ...] = ()


class Visitor(Protocol):
    """What becomes of a region; `form` says what its slot would hold."""

    def __call__(self, name: str, form: str, entry: Tensor, run: Run) -> Tensor: ...


def feed_forward() -> nn.Module:
    """Two linears."""
    return nn.Sequential(nn.Linear(C, 2 * C), nn.GELU(), nn.Linear(2 * C, C))


class BlockModule(nn.Module):
    """See `Block`; takes and gives the grid [.., S, C] whose first axes are `order`."""

    def __init__(self, block: Block, order: str, name: str) -> None:
        super().__init__()
        self.block, self.name, self.order = block, name, order
        self.attention, self.ff = Attention(block.how, C, C), feed_forward()
        self.cross = Attention(block.how, C, TEXT) if block.cross else None
        self.ff_in = feed_forward() if block.style == "ff_in" else None
        self.norms = nn.ModuleList(nn.LayerNorm(C) for _ in range(4))
        self.modulation = nn.Linear(TEXT, 6 * C) if block.style == "modulated" else None
        self.shift = nn.Parameter(torch.empty(C)) if block.style == "blend" else None
        self.mix = nn.Parameter(torch.empty(1)) if block.style == "blend" else None

    def forward(self, grid: Tensor, text: Tensor, visit: Visitor) -> Tensor:
        if self.shift is None or self.mix is None:
            inside: Run = lambda x: self._inside(x, text)  # noqa: E731
            return self._grouped(grid, lambda x: visit(self.name, "difference", x, inside))
        shift, a = self.shift, torch.sigmoid(self.mix)

        def blended(x: Tensor) -> Tensor:
            return a * x + (1 - a) * self._grouped(x + shift, lambda g: self._inside(g, text))

        return visit(self.name, "difference", grid, blended)

    def _inside(self, x: Tensor, text: Tensor) -> Tensor:
        first, cross, last, before = self.norms
        if self.ff_in is not None:
            x = x + self.ff_in(before(x))
        if self.block.style == "parallel":
            y = first(x)
            return x + self.attention(y) + self.ff(y)
        attending, feeding = self._modulation(text)
        x = x + attending(self.attention, first(x))
        if self.cross is not None:
            words = text.repeat_interleave(x.shape[0] // len(text), dim=0)
            x = x + self.cross(cross(x), words)
        return x + feeding(self.ff, last(x))

    def _modulation(self, text: Tensor) -> tuple[Modulated, Modulated]:
        """How attention and feed-forward are called."""
        if self.modulation is None:
            one: Modulated = lambda part, y: part(y)  # noqa: E731
            half: Modulated = lambda part, y: 0.5 * part(y)  # noqa: E731
            return (half, half) if self.block.style == "scaled" else (one, one)
        a, b, gate, c, d, gate_ff = self.modulation(text.mean(1, keepdim=True)).chunk(6, dim=-1)
        return (
            lambda part, y: gate * part(y * (1 + b) + a),
            lambda part, y: gate_ff * part(y * (1 + d) + c),
        )

    def _grouped(self, grid: Tensor, run: Run) -> Tensor:
        """Run on [groups, tokens, C], and put the grid together again."""
        axes = f"{self.order}SC"
        along = SEQUENCES[self.block.kind]
        turned = [*(a for a in axes[:-1] if a not in along), *along, "C"]
        there = grid.permute([axes.index(axis) for axis in turned])
        groups = there.reshape(-1, prod(there.shape[-1 - len(along) : -1]), C)
        back = run(groups).reshape(there.shape)
        return back.permute([turned.index(axis) for axis in axes])


class ChainModule(nn.Module):
    """See `Chain`; takes and gives images."""

    def __init__(self, chain: Chain, order: str, name: str) -> None:
        super().__init__()
        self.chain, self.name, self.order = chain, name, order
        prefix, seen = name.removesuffix("chain"), dict[str, int]()
        self.blocks = nn.ModuleList()
        for block in chain.blocks:
            seen[block.kind] = (count := seen.get(block.kind, 0)) + 1
            own = f"{prefix}{block.kind}" + (f".{count}" if count else "")
            self.blocks.append(BlockModule(block, order, own if chain.wrap != "none" else name))
        if chain.wrap != "none":
            self.norm = nn.GroupNorm(2, C)
            size = 3 if chain.wrap == "conv" else 1
            self.into, self.out = (nn.Conv2d(C, C, size, padding=size // 2) for _ in range(2))

    def forward(self, x: Tensor, text: Tensor, visit: Visitor) -> Tensor:
        def on_grid(images: Tensor) -> Tensor:
            sizes = [{"B": B, "F": FRAMES, "V": V}[axis] for axis in self.order]
            grid = images.flatten(2).transpose(1, 2).unflatten(0, sizes)
            for block in self.blocks:
                grid = block(grid, text, visit)
            return grid.flatten(0, 2).transpose(1, 2).reshape(images.shape)

        if self.chain.wrap == "none":
            return on_grid(x)  # its only block is the chain
        return visit(self.name, "sum", x, lambda y: self.out(on_grid(self.into(self.norm(y)))))


class Residual(nn.Module):
    """Convolutions with the level's embedding between them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.emb = nn.GroupNorm(2, C), nn.Linear(C, C)
        self.convs = nn.ModuleList(nn.Conv2d(C, C, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        hidden = self.convs[0](F.silu(self.norm(x))) + self.emb(emb)[:, :, None, None]
        return x + self.convs[1](F.silu(hidden))


class Upsample(nn.Module):
    """Twice as high and wide, then a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(C, C, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class LevelModule(nn.Module):
    """A body at half the resolution, and the way back."""

    def __init__(self, body: BodyModule, name: str) -> None:
        super().__init__()
        self.body, self.name, self.up = body, name, Upsample()

    def forward(self, x: Tensor, emb: Tensor, text: Tensor, visit: Visitor) -> Tensor:
        return visit(self.name, "exit", x, lambda y: self.up(self.body(y, emb, text, visit)))


class BodyModule(nn.Module):
    """See `Body`."""

    def __init__(self, body: Body, parts: Any) -> None:
        super().__init__()
        self.skip = body.skip
        self.before = nn.ModuleList(parts(part) for part in body.before)
        self.down = self.lower = self.join = None
        if body.lower is not None:
            self.down = nn.Conv2d(C, C, 3, stride=2, padding=1)
            self.lower = parts(body.lower)
            self.join = nn.Conv2d(2 * C, C, 1) if body.skip == "cat" else None
        self.after = nn.ModuleList(parts(part) for part in body.after)

    def forward(self, x: Tensor, emb: Tensor, text: Tensor, visit: Visitor) -> Tensor:
        x = self._parts(self.before, x, emb, text, visit)
        if self.lower is not None and self.down is not None:
            deep = self.lower(self.down(x), emb, text, visit)
            if self.join is not None:
                x = self.join(torch.cat([deep, x], dim=1))
            else:
                x = x + deep if self.skip == "add" else deep
        return self._parts(self.after, x, emb, text, visit)

    @staticmethod
    def _parts(parts: Any, x: Tensor, emb: Tensor, text: Tensor, visit: Visitor) -> Tensor:
        for part in parts:
            x = part(x, emb) if isinstance(part, Residual) else part(x, text, visit)
        return x
