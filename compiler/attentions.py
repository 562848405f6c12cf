"""attentions: where a graph attends, by the fused operator or by softmax(QK^T)V written out.

Written out, the scores are a product of queries and keys, scaled, masked, cast and reshaped on the
way to a softmax; its weights reach a product with the values in the same ways. What a softmax, an
operator or a product of two values of the sample does that could not be read is named with the
reason, so that no attention goes missing without a word.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx
from turbo4d.compiler.attention_products import Scores, is_product, scores_of, sides, sums_over
from turbo4d.compiler.node_values import shape_of

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default
Masked = Literal["", "causal", "masked"]

_MASKS = (
    aten.masked_fill.Scalar, aten.masked_fill.Tensor, aten.where.self, aten.where.ScalarOther,
    aten.where.ScalarSelf, aten.add.Tensor,
)  # fmt: skip
# Each entry of the result is made of the same entry of an operand.
_ENTRYWISE = (
    *_MASKS, aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar, aten.add.Scalar,
    aten.sub.Tensor, aten.sub.Scalar, aten._to_copy.default, aten.clone.default, aten.tanh.default,
    aten.clamp.default, aten.clamp.Tensor, aten.nan_to_num.default, aten.maximum.default,
)  # fmt: skip
_SHAPES = (
    aten.reshape.default, aten.unsqueeze.default, aten.squeeze.dim, aten.expand.default,
)  # fmt: skip


@dataclass(frozen=True)
class Attention:
    """The operands of one attention, however it is written.

    Args:
        node: that yields the attended values.
        query: with the queries along `query_axis`.
        key: with the keys along `key_axis`.
        keys: how many.
        key_axis: counted from the end.
        query_axis: likewise.
        batch: the axes of `query` that are neither queries nor features, heads among them.
        masked: whether it leaves out keys: by its own flag, or by a mask or bias.
        products: the nodes of the graph that it multiplies with.
    """

    node: fx.Node
    query: fx.Node
    key: fx.Node
    keys: int
    key_axis: int
    query_axis: int
    batch: tuple[int, ...]
    masked: Masked
    products: tuple[fx.Node, ...]


@dataclass(frozen=True)
class Unread:
    """What may be an attention and could not be read as one.

    Args:
        node: a softmax, an operator or a product.
        reason: what was not found.
    """

    node: fx.Node
    reason: str


def find_attentions(graph: fx.Graph) -> list[Attention]:
    """Every attention of a graph: the fused operator, and softmax(QK^T)V written out."""
    return [found for found in _read(graph) if isinstance(found, Attention)]


def find_unread(
    graph: fx.Graph, attentions: Collection[Attention], stream: Collection[str]
) -> list[Unread]:
    """What is on the sample's path and may be an attention, but is none of those that were found.

    Args:
        graph: of them.
        attentions: that were found.
        stream: names of the nodes that depend on the sample.
    """
    unread = [found for found in _read(graph) if isinstance(found, Unread)]
    known = {product for attention in attentions for product in attention.products}
    # A softmax that could not be read speaks for the products beside it.
    spoken = {product for one in unread for product in _near(one.node)}
    for node in graph.nodes:
        if is_product(node) and node not in known | spoken:
            if all(side.name in stream for side in sides(node)):
                unread.append(Unread(node, "it multiplies two values, and no softmax is between"))
    return [one for one in unread if one.node.name in stream]


def _read(graph: fx.Graph) -> Iterator[Attention | Unread]:
    for node in graph.nodes:
        if node.target is SDPA:
            yield _fused(node)
        elif (softmax := _softmax(node)) is not None:
            yield _written_out(node, *softmax)
        elif node.op == "call_function" and "attention" in str(node.target):
            if isinstance(node.meta.get("val"), (torch.Tensor, tuple, list)):
                yield Unread(node, f"{node.target} is no operator that turbo4d can read")


def _fused(node: fx.Node) -> Attention:
    query, key = _node(node.args[0]), _node(node.args[1])
    given: dict[str, Any] = dict(zip(("mask", "dropout", "causal"), node.args[3:], strict=False))
    causal = given.get("causal", node.kwargs.get("is_causal", False))
    mask = given.get("mask", node.kwargs.get("attn_mask"))
    batch = tuple(range(len(shape_of(query)) - 2))
    masked: Masked = "causal" if causal else "masked" if mask is not None else ""
    return Attention(node, query, key, shape_of(key)[-2], -2, -2, batch, masked, (node,))


def _softmax(node: fx.Node) -> tuple[fx.Node, int] | None:
    """The scores of a softmax and the axis it sums over, of the operator or of exp(x) / sum."""
    if node.target is aten.softmax.int:
        axis: Any = node.args[1]
        return _node(node.args[0]), axis - len(shape_of(node))
    if node.target is not aten.div.Tensor:
        return None
    weights, total = _node(node.args[0]), _node(node.args[1])
    if getattr(weights, "target", None) is not aten.exp.default:
        return None
    if getattr(total, "target", None) is not aten.sum.dim_IntList or total.args[0] is not weights:
        return None
    over: Any = total.args[1]
    rank = len(shape_of(node))
    kept = len(shape_of(total)) == rank and len(over) == 1
    return (_node(weights.args[0]), over[0] % rank - rank) if kept else None


def _written_out(softmax: fx.Node, inner: fx.Node, axis: int) -> Attention | Unread:
    scores = next(_scores_behind(inner, axis), None)
    if scores is None:
        return Unread(softmax, "no product of queries and keys leads to its softmax")
    product, found, masked = scores
    values = list(_values_after(softmax, axis))
    if not values:
        return Unread(softmax, "no product sums values by the weights of its softmax")
    return Attention(
        values[0], found.query, found.key, shape_of(found.key)[found.key_axis], found.key_axis,
        found.query_axis, found.batch, masked, (product, *values),
    )  # fmt: skip


def _node(value: Any) -> fx.Node:
    return value


def _scores_behind(node: fx.Node, axis: int) -> Iterator[tuple[fx.Node, Scores, Masked]]:
    """The products that scores are made of, nearest operand first; keys lie along `axis`."""
    waiting: list[tuple[fx.Node, int, Masked]] = [(node, axis, "")]
    seen: set[fx.Node] = set()
    while waiting:
        node, axis, masked = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if is_product(node):
            if (scores := scores_of(node, axis)) is not None:
                biased = node.target is aten.baddbmm.default and node.kwargs.get("beta", 1) != 0
                yield node, scores, "masked" if biased else masked
            continue
        operands = [o for o in node.all_input_nodes if _floating(o)]
        adds = node.target is not aten.add.Tensor or len(operands) > 1
        masked = "masked" if node.target in _MASKS and adds else masked
        for operand in reversed(operands):
            if (before := _same_axis(operand, node, axis, back=True)) is not None:
                waiting.append((operand, before, masked))


def _values_after(softmax: fx.Node, axis: int) -> Iterator[fx.Node]:
    """The products that sum values by the weights of a softmax."""
    waiting = [(softmax, axis)]
    seen: set[fx.Node] = set()
    while waiting:
        node, axis = waiting.pop(0)
        for user in node.users:
            if user in seen:
                continue
            if is_product(user):
                if sums_over(user, node, axis):
                    seen.add(user)
                    yield user
            elif (after := _same_axis(node, user, axis, back=False)) is not None:
                seen.add(user)
                waiting.append((user, after))


def _same_axis(before: fx.Node, after: fx.Node, axis: int, *, back: bool) -> int | None:
    """Where an axis of one value lies in the other, where one call leads between them.

    Args:
        before: the operand.
        after: the call.
        axis: of `after` when looking back, of `before` otherwise; counted from the end.
        back: which way to look.
    """
    source, result = shape_of(before), shape_of(after)
    if after.target is aten.permute.default:
        order: Any = after.args[1]
        rank = len(order)
        return order[axis + rank] - rank if back else order.index(axis + rank) - rank
    if after.target in _SHAPES:
        kept = min(axis, -2)
        return axis if source[kept:] == result[kept:] else None
    if after.target in _ENTRYWISE:
        kept = len(source) >= -axis and source[axis] == result[axis]
        return axis if kept and len(source) == len(result) else None
    return None


def _floating(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _near(node: fx.Node) -> Iterator[fx.Node]:
    """The products that an unread softmax reads from or hands its weights to."""
    softmax = _softmax(node)
    if softmax is not None:
        yield from (product for product, *_ in _scores_behind(*softmax))
        yield from _values_after(node, softmax[1])
