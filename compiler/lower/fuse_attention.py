"""fuse-attention: attention over few tokens becomes one call, from its norm to its sum.

rewrite: n = layer_norm(x), add(y, linear(join(sdpa(split(linear(n, q)), split(linear(n, k)),
         split(linear(n, v)))), o, b))
         -> turbo4d.token_attention(x, ..., q, k, v, o, b, ..., add=y)
Requires: float32 or a half type throughout; queries, keys and values of one value, without bias;
no mask; at most `MOST_TOKENS` tokens. Norm and sum are taken in where nothing else reads what lies
between.
Ensures: the last call of each place keeps its name.
Error: rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from turbo4d.passes import PassReport
from turbo4d.passes.base import become, emit, erase_unused
from turbo4d.runtime.engines.triton_tuning import DTYPES
from turbo4d.runtime.token_attention import MOST_TOKENS, OPERATOR

from .places import aten, given, inside, listed, node_of, split_into_heads, sum_after, value_of

_KEPT: tuple[str, ...] = ()  # the graph is the lowering's own: no name in it must stay
_HEADS = [0, 2, 1, 3]


@dataclass(frozen=True)
class _Place:
    """An attention with its projections.

    Args:
        source: what queries, keys and values are made of.
        weights: of queries, keys and values.
        last: the linear after it.
        heads: N.
        scale: of the scores.
    """

    source: fx.Node
    weights: tuple[fx.Node, ...]
    last: fx.Node
    heads: int
    scale: float


def fuse_attention(graph: fx.Graph) -> PassReport:
    """Fuse what fits; the report says why each other attention was left alone.

    Args:
        graph: canonical; changed in place.
    """
    report = PassReport("fuse-attention")
    found = graph.find_nodes(op="call_function", target=aten.scaled_dot_product_attention.default)
    for site in found:
        place = _place_of(site)
        if isinstance(place, str):
            report.skip(site, place)
        else:
            report.rewrote(_write(place), "turbo4d.token_attention")
    if report.rewritten:
        erase_unused(graph)
    return report


def _place_of(site: fx.Node) -> _Place | str:
    """The place of an attention, or why it is none."""
    if len(site.args) != 3 or {*site.kwargs} - {"scale"}:
        return "it has a mask, dropout or an order"
    tokens, depth = site.meta["val"].shape[-2:]
    if not 1 < tokens <= MOST_TOKENS:
        return f"it is over {tokens} tokens; wanted 2 to {MOST_TOKENS}"
    linears = [split_into_heads(operand, _KEPT) for operand in site.args]
    parts = [part for part in linears if part is not None]
    if len(parts) != 3 or len({node_of(part.args[0]) for part in parts}) != 1:
        return "its queries, keys and values are not linears of one value"
    if any(len(part.args) > 2 or part.kwargs for part in parts):
        return "its queries, keys or values have a bias"
    turned = inside(next(iter(site.users)), aten.permute.default, _KEPT)
    joined = None if turned is None else next(iter(turned.users))
    last = None if joined is None else next(iter(joined.users))
    if (
        turned is None or joined is None or last is None
        or len(site.users) > 1 or listed(turned.args[1]) != _HEADS
        or joined.target is not aten.reshape.default or len(joined.users) > 1
        or last.target is not aten.linear.default or last.args[0] is not joined
    ):  # fmt: skip
        return "no linear alone reads what it gives"
    source = node_of(parts[0].args[0])
    shape = value_of(source).shape
    values = [value_of(each) for each in (source, joined, last, *parts)]
    if len(shape) != 3 or shape[1] != tokens or any(each.shape != shape for each in values):
        return f"its values are no [groups, {tokens} tokens, channels] throughout"
    weights = tuple(node_of(part.args[1]) for part in parts)
    held = (*weights, *last.args[1:])
    kinds = {value_of(each).dtype for each in (source, *held) if isinstance(each, fx.Node)}
    if len(kinds) > 1 or not kinds.issubset(DTYPES):
        return f"it is in {' and '.join(sorted(map(str, kinds)))}; wanted one of 32 bits or fewer"
    if any(not value_of(each).is_contiguous() for each in held if isinstance(each, fx.Node)):
        return "a weight has gaps"
    scale = site.kwargs.get("scale")
    factor = 1 / math.sqrt(depth) if scale is None else float(str(scale))
    return _Place(source, weights, last, site.meta["val"].shape[1], factor)


def _write(place: _Place) -> fx.Node:
    """Turn the last call, or the sum after it, into the operator; gives the operator's call."""
    x, norm = place.source, (None, None, None)
    own = x.target is aten.layer_norm.default and len(x.users) == 3
    if own and listed(x.args[1]) == [value_of(x).shape[-1]]:
        weight, bias, eps = given(x, 2, (None, None, 1e-5))
        if (weight is None) == (bias is None):
            x, norm = node_of(x.args[0]), (weight, bias, eps)
    last, add = sum_after(place.last, _KEPT)
    out, out_bias = given(place.last, 1, (None, None))
    with last.graph.inserting_before(last), torch.no_grad():
        rows, more = (_one_more(each) for each in (x, add))
        weights = (*place.weights, out, out_bias)
        call = emit(last.graph, OPERATOR, rows, *norm, *weights, place.heads, place.scale, more)
        become(last, aten.squeeze.dim, call, 0)
    return call


def _one_more(node: fx.Node | None) -> Any:
    """[groups, tokens, channels] as the operator's, [1, groups, tokens, channels]."""
    return None if node is None else emit(node.graph, aten.unsqueeze.default, node, 0)
