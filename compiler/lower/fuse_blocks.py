"""fuse-blocks: feed-forwards and attention within short sequences become one call each.

rewrite: add(x, linear(mul(slice(u), gelu(slice(u))), w)), u = linear(layer_norm(x), v)
         -> turbo4d.gated_feed_forward(x, ..., add=x)
         add(x, linear(join(sdpa(split(linear(n, q)), split(linear(n, k)), split(linear(n, v)))),
         o)), n = layer_norm(x) -> turbo4d.short_attention(x, ..., add=x)
Requires: float32 on a CPU; widths that are multiples of 32. Norm and sum are taken in where nothing
else reads what lies between.
Ensures: the last call of each place keeps its name; no node that is named or returned is lost.
Error: rounding; erf to 4.5e-7.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from turbo4d.passes.base import become
from turbo4d.runtime.gated_feed_forward import OPERATOR

from . import row_ops as row_ops  # registers the operators
from .places import (
    PANEL,
    aten,
    given,
    inside,
    listed,
    node_of,
    split_into_heads,
    sum_after,
    taken,
    value_of,
)  # fmt: skip

LONGEST = 32
"""Longer sequences are torch's own attention's, which works on blocks of scores."""


def fuse_block(last: fx.Node, kept: Collection[str]) -> bool:
    """Fuse what ends with a linear; says whether it could."""
    place = feed_forward(last, kept, _takes) or _attention(last, kept)
    if place is not None:
        place.write(kept)
    return place is not None


@dataclass(frozen=True)
class Place:
    """What becomes one call.

    Args:
        last: its last linear.
        source: what its first linears read.
        operator: of `turbo4d`.
        arguments: between the norm's and the sum's.
        readers: of the norm, where one is taken in.
    """

    last: fx.Node
    source: fx.Node
    operator: Any
    arguments: tuple[Any, ...]
    readers: int

    def write(self, kept: Collection[str]) -> None:
        """Turn the last call, or the sum after it, into the operator."""
        x, norm = self.source, (None, None, None)
        inner = x.target is aten.layer_norm.default and x.name not in kept
        if inner and len(x.users) == self.readers and _is_last_axis(x):
            weight, bias, eps = given(x, 2, (None, None, 1e-5))
            x, norm = node_of(x.args[0]), (weight, bias, eps)
        node, add = sum_after(self.last, kept)
        become(node, self.operator, x, *norm, *self.arguments, add)


def feed_forward(
    last: fx.Node, kept: Collection[str], takes: Callable[[fx.Node, fx.Node], bool]
) -> Place | None:
    """The gated feed-forward that ends with a linear, where there is one.

    Args:
        last: the linear.
        kept: nodes that must stay.
        takes: whether kernels take the first and the last linear.
    """
    product = inside(last.args[0], aten.mul.Tensor, kept)
    if product is None:
        return None
    for value, active in (product.args, product.args[::-1]):
        gelu = inside(active, aten.gelu.default, kept)
        low = inside(value, aten.slice.Tensor, kept)
        high = None if gelu is None else inside(gelu.args[0], aten.slice.Tensor, kept)
        if gelu is None or low is None or high is None or low.args[0] is not high.args[0]:
            continue
        if len(gelu.args) > 1 or gelu.kwargs.get("approximate", "none") != "none":
            continue
        both = inside(low.args[0], aten.linear.default, kept, users=2)
        if both is not None and _halves(low, high) and takes(both, last):
            up, up_bias = given(both, 1, (None, None))
            down, down_bias = given(last, 1, (None, None))
            weights = (up, up_bias, down, down_bias)
            return Place(last, node_of(both.args[0]), OPERATOR, weights, 1)
    return None


def _attention(last: fx.Node, kept: Collection[str]) -> Place | None:
    joined = inside(last.args[0], aten.reshape.default, kept)
    if joined is None:
        return None
    turned = inside(joined.args[0], aten.permute.default, kept)
    if turned is None or listed(turned.args[1]) != [0, 2, 1, 3]:
        return None
    site = inside(turned.args[0], aten.scaled_dot_product_attention.default, kept)
    if site is None or len(site.args) != 3 or not {"scale"}.issuperset(site.kwargs):
        return None
    parts = [split_into_heads(operand, kept) for operand in site.args]
    linears = [part for part in parts if part is not None]
    if len(linears) != 3 or len({node_of(part.args[0]) for part in linears}) != 1:
        return None
    if any(len(part.args) > 2 or part.kwargs for part in linears):
        return None  # a bias of queries, keys or values
    heads, depth = site.meta["val"].shape[1], site.meta["val"].shape[3]
    shapes = [
        each.meta["val"].shape for each in (*linears, node_of(linears[0].args[0]), joined, last)
    ]
    short = len(shapes[0]) == 3 and shapes[0][1] <= LONGEST and len({*shapes}) == 1
    if not short or not all(_takes(part, last) for part in linears) or depth % 16:
        return None
    scale = site.kwargs.get("scale")
    out, out_bias = given(last, 1, (None, None))
    weights = (*(part.args[1] for part in linears), out, out_bias)
    scores = (heads, 1 / math.sqrt(depth) if scale is None else scale)
    operator = torch.ops.turbo4d.short_attention.default
    return Place(last, node_of(linears[0].args[0]), operator, (*weights, *scores), 3)


def _takes(first: fx.Node, last: fx.Node) -> bool:
    """Whether the kernels take a place: its type, its device, its widths, its rows."""
    source = value_of(first.args[0])
    typed = all(value_of(each.args[1]).dtype == torch.float32 for each in (first, last))
    widths = (source.shape[-1], value_of(first).shape[-1], value_of(last).shape[-1])
    rows = math.prod(source.shape[:-1])
    return typed and taken(source, rows) and not any(width % PANEL for width in widths)


def _halves(low: fx.Node, high: fx.Node) -> bool:
    both = node_of(low.args[0]).meta["val"]
    half, last = both.shape[-1] // 2, both.dim() - 1
    first, second = (given(each, 1, (0, None, None, 1)) for each in (low, high))
    if first[0] not in (-1, last) or second[0] not in (-1, last) or (first[3], second[3]) != (1, 1):
        return False
    begins, ends = (first[1] or 0, second[1]), (first[2], second[2] or 2 * half)
    return begins == (0, half) and ends[0] == half and ends[1] >= 2 * half


def _is_last_axis(norm: fx.Node) -> bool:
    value: Tensor = value_of(norm)
    return listed(norm.args[1]) == [value.shape[-1]]
