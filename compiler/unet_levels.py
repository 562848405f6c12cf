"""unet-levels: the segments that run at a lower resolution, and the core of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from turbo4d.compiler.flops import MULTIPLIERS
from turbo4d.compiler.flow import Flow, Segment
from turbo4d.compiler.node_values import shape_of

aten = torch.ops.aten
_PRODUCTS = frozenset(MULTIPLIERS) - {aten.scaled_dot_product_attention.default}

# These change which side is which, not how many pixels there are.
_REARRANGING = (
    aten.reshape.default, aten.permute.default, aten.slice.Tensor, aten.linear.default,
    aten.select.int, aten.squeeze.dim, aten.unsqueeze.default, aten.matmul.default,
)  # fmt: skip


def find_levels(flow: Flow, core: Segment | None) -> list[Segment]:
    """Each segment from a downsample's output to the matching upsample's, outermost first."""
    found: list[Segment] = []
    for position in range(1, len(flow.nodes)):
        if core is not None and position <= core.entry:
            continue
        if _shrinks(flow, position) and (exit := _grown_back(flow, position)) is not None:
            found.append(Segment(position, exit, exit))
    return found


def find_core(flow: Flow) -> Segment | None:
    """Everything between the first and the last convolution or linear on the stream's cuts."""
    cuts = flow.cuts()
    products = [at for at in cuts if flow.nodes[at].target in _PRODUCTS]
    if len(products) < 2:
        return None
    entry, last = products[0], products[-1]
    before = [at for at in cuts if at < last]
    exit = before[-1]
    return Segment(entry, exit, exit) if exit > entry else None


def is_skip(flow: Flow, node: fx.Node) -> bool:
    """Whether a node joins an older value of the stream to a newer one along the channels."""
    if node.target is not aten.cat.default:
        return False
    return len(flow.before(node)) > 1 and _channels(node) and len(shape_of(node)) >= 4


def _channels(node: fx.Node) -> bool:
    axis: Any = node.args[1] if len(node.args) > 1 else 0
    return bool(axis == 1)


def _shrinks(flow: Flow, position: int) -> bool:
    node = flow.nodes[position]
    before = [flow.nodes[at] for at in flow.before(node)]
    if len(before) != 1 or node.target in _REARRANGING:
        return False
    here, there = _space(node), _space(before[0])
    same_rank: bool = len(shape_of(node)) == len(shape_of(before[0]))
    return same_rank and bool(here) and all(a < b for a, b in zip(here, there, strict=True))


def _grown_back(flow: Flow, entry: int) -> int | None:
    """The matching upsample's output, with the convolution right after it."""
    [before] = flow.before(flow.nodes[entry])
    low, wanted = _space(flow.nodes[entry]), _space(flow.nodes[before])
    exits = flow.furthest(entry)
    grown = [
        at
        for at in exits
        if _larger(_space(flow.nodes[at]), low) and _images_alike(flow.nodes[at], flow.nodes[entry])
    ]
    whole = [at for at in grown if not _larger(wanted, _space(flow.nodes[at]))] or grown
    if not whole:
        return None
    after = exits[exits.index(whole[0]) + 1 :][:1]
    follows = [at for at in after if flow.nodes[at].target in _PRODUCTS and at in grown]
    return follows[0] if follows else whole[0]


def _images_alike(node: fx.Node, other: fx.Node) -> bool:
    """Whether two values hold as many images; tokens in a grid of views and frames do not."""
    a, b = shape_of(node), shape_of(other)
    return len(a) == len(b) and a[0] == b[0] and (len(a) == 4 or node.target not in _REARRANGING)


def _space(node: fx.Node) -> tuple[int, ...]:
    """Height and width of an image-shaped value."""
    shape = shape_of(node)
    return shape[-2:] if len(shape) >= 4 else ()


def _larger(space: Sequence[int], low: Sequence[int]) -> bool:
    return bool(space) and all(a > b for a, b in zip(space, low, strict=True))
