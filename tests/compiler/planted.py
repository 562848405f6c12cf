"""Residual networks made to a plan of one's own, which know their regions and what they cost.

A network is drawn as a `Body`; built, it lists the regions that it was planted with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.compiler.planted_attention import Dot
from tests.compiler.planted_modules import (
    FRAMES,
    SEQUENCES,
    TEXT,
    WORDS,
    B,
    BlockModule,
    Body,
    BodyModule,
    C,
    Chain,
    ChainModule,
    LevelModule,
    Residual,
    Run,
    V,
    Visitor,
)
from tests.compiler.planted_spellings import HEADS


@dataclass
class Planted:
    """A region that the network was built with."""

    name: str
    kind: str
    form: str
    module: nn.Module
    parent: str | None = None


def plain(name: str, form: str, entry: Tensor, run: Run) -> Tensor:
    """Every region is computed."""
    return entry + run(entry) if form == "sum" else run(entry)


class Net(nn.Module):
    """A convolution, a body, a norm and a convolution; images in the order given.

    Args:
        body: what is planted.
        order: of the image axis, "BFV" or "BVF".

    Attributes:
        regions: what was planted, the core first, then the levels, then the chains with their
            blocks.
    """

    def __init__(self, body: Body, order: str) -> None:
        super().__init__()
        self.walk = walk = Walk(body)
        names, levels = iter(walk.chain_names()), iter(range(1, 9))

        def part(one: Chain | Body | None) -> nn.Module:
            if one is None:
                return Residual()
            if isinstance(one, Chain):
                return ChainModule(one, order, next(names))
            name = f"level.{next(levels)}"
            return LevelModule(BodyModule(one, part), name)

        self.order = order
        self.first, self.last = (nn.Conv2d(*ends, 3, padding=1) for ends in ((4, C), (C, 4)))
        self.body, self.norm = BodyModule(body, part), nn.GroupNorm(2, C)
        self.regions = planted(self, walk)

    def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        return self.run(x, t, text, plain)

    def sites(self, side: int) -> list[tuple[str, int, int, int]]:
        """Kind, queries, keys and heads of each attention, for images of a side."""
        found: list[tuple[str, int, int, int]] = []
        for chain in (m for m in self.modules() if isinstance(m, ChainModule)):
            depth = len(self.walk.around(self.walk.chain_at(chain.name)))
            sizes = {"S": (side >> depth) ** 2, "V": V, "F": FRAMES}
            for block in chain.chain.blocks:
                tokens = prod(sizes[axis] for axis in SEQUENCES[block.kind])
                found.append((block.kind, tokens, tokens, HEADS))
                if block.cross:
                    found.append(("cross", tokens, WORDS, HEADS))
        return found

    def run(self, x: Tensor, t: Tensor, text: Tensor, visit: Visitor) -> Tensor:
        """As a call, with a visitor at each region."""
        speed = torch.tensor([1.0, 0.3, 0.1, 0.03], dtype=x.dtype)
        angles = t[:, None] * speed
        emb = torch.cat([angles.sin(), angles.cos()], dim=-1)
        inner = visit(
            "core", "exit", self.first(x),
            lambda y: F.silu(self.norm(self.body(y, emb, text, visit))),
        )  # fmt: skip
        return self.last(inner)


class Walk:
    """What a body does in order: chains, and where levels and skips begin and end."""

    def __init__(self, body: Body) -> None:
        self.events: list[str] = []
        self.levels = 0
        self._body(body)

    def _body(self, body: Body) -> None:
        self.events += ["chain" for part in body.before if part is not None]
        if body.lower is not None:
            self.levels += 1
            name = f"level.{self.levels}"
            self.events += [f"tap {name} {body.skip}", f"down {name}"]
            self._body(body.lower)
            self.events += [f"up {name}", f"join {name} {body.skip}"]
        self.events += ["chain" for part in body.after if part is not None]

    def chain_names(self) -> list[str]:
        """As the documentation of regions says; only a skip along the channels tells sides."""
        joins = [i for i, event in enumerate(self.events) if event.startswith("join")]
        joins = [i for i in joins if self.events[i].endswith("cat")]
        taps = [i for i, e in enumerate(self.events) if e[:3] == "tap" and e.endswith("cat")]
        sides: list[str] = []
        for at, event in enumerate(self.events):
            if event == "chain":
                side = "up" if joins and at > joins[0] else "middle"
                side = "down" if side == "middle" and taps and at < taps[-1] else side
                depth = len(self.around(at))
                sides.append(side if side == "middle" else f"{side}.{depth}")
        if not self.levels:
            sides = ["stack"] * len(sides)
        if sides.count("middle") == 1:
            return [f"{s}.chain" if s == "middle" else _numbered(sides, i)
                    for i, s in enumerate(sides)]  # fmt: skip
        return [_numbered(sides, i) for i in range(len(sides))]

    def chain_at(self, name: str) -> int:
        """Position of a chain's event, by its name."""
        places = [i for i, event in enumerate(self.events) if event == "chain"]
        return places[self.chain_names().index(name)]

    def at(self, what: str) -> int:
        """Position of an event, by how it begins."""
        return next(i for i, event in enumerate(self.events) if event.startswith(what))

    def around(self, at: int) -> list[str]:
        """The levels that an event lies in, outermost first."""
        names = [f"level.{n}" for n in range(1, self.levels + 1)]
        return [n for n in names if self.at(f"down {n}") < at < self.at(f"up {n}")]

    def starved(self, at: int) -> list[str]:
        """The levels that all later reading of what is made at an event goes through."""
        names = [f"level.{n}" for n in range(1, self.levels + 1)]
        found: list[tuple[int, str]] = []
        for name in names:
            down, up = self.at(f"down {name}"), self.at(f"up {name}")
            taps = [
                event.split()[1] for event in self.events[at + 1 : down]
                if event[:3] == "tap" and not event.endswith("none")
            ]  # fmt: skip
            if at < up and all(self.at(f"join {tap}") < up for tap in taps):
                found.append((up, name))
        return [name for _, name in sorted(found)]


def _numbered(sides: list[str], index: int) -> str:
    return f"{sides[index]}.{sides[:index].count(sides[index])}.chain"


def planted(net: Net, walk: Walk) -> list[Planted]:
    """The regions of a network that is built."""
    levels = [m for m in net.modules() if isinstance(m, LevelModule)]
    chains = [m for m in net.modules() if isinstance(m, ChainModule)]
    places = [i for i, event in enumerate(walk.events) if event == "chain"]
    found = [Planted("core", "core", "exit", net)]
    for level in levels:
        starved = [n for n in walk.starved(walk.at(f"up {level.name}")) if n != level.name]
        found.append(Planted(level.name, "level", "exit", level, (*starved, "core")[0]))
    for chain, at in zip(chains, places, strict=True):
        form = "difference" if chain.chain.wrap == "none" else "sum"
        parent = (*walk.starved(at), "core")[0]
        found.append(Planted(chain.name, "chain", form, chain, parent))
        for block in chain.blocks:
            if isinstance(block, BlockModule) and block.name != chain.name:
                one = Planted(block.name, "block", "difference", block, chain.name)
                found.append(one)
    return found


def products(module: nn.Module) -> list[nn.Module]:
    """The modules that multiply, each once."""
    return [m for m in module.modules() if isinstance(m, (nn.Linear, nn.Conv2d, Dot))]


def costs(net: Net, call: Sequence[Tensor]) -> dict[nn.Module, int]:
    """Operations of every product in one call, by the formulas of the modules."""
    found: dict[nn.Module, int] = {}

    def note(module: Any, args: Any, output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            found[module] = 2 * output.numel() * module.in_features
        elif isinstance(module, nn.Conv2d):
            found[module] = 2 * output.numel() * module.in_channels * prod(module.kernel_size)
        else:
            found[module] = 4 * output.numel() * args[1].shape[1]

    hooks = [module.register_forward_hook(note) for module in products(net)]
    with torch.no_grad():
        net(*call)
    for hook in hooks:
        hook.remove()
    return found


def build(
    body: Body, order: str = "BFV", side: int = 4
) -> tuple[Net, tuple[Tensor, Tensor, Tensor]]:
    """A network in double precision with weights that are all at work, and one call of it."""
    net = Net(body, order).eval().double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    images = B * V * FRAMES
    x = torch.randn(images, 4, side, side, generator=generator)
    text = torch.randn(B, WORDS, TEXT, generator=generator)
    return net, (x.double(), torch.full((images,), 0.7).double(), text.double())
