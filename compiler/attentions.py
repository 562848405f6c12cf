"""attentions: where a graph attends, by the fused operator or by softmax(QK^T)V written out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from turbo4d.compiler.axis_rules import shape_of

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default
_SCALING = (
    aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar, aten.add.Tensor,
    aten.sub.Tensor, aten._to_copy.default, aten.masked_fill.Scalar,
)  # fmt: skip
_PRODUCTS = (aten.matmul.default, aten.bmm.default)


@dataclass(frozen=True)
class Attention:
    """The operands of one attention, however it is written.

    Args:
        node: that yields the attended values.
        query: [..., L, D].
        key: [..., K, D], or [..., D, K] where written out by hand.
        keys: K.
        key_axis: position of K in `key`.
    """

    node: fx.Node
    query: fx.Node
    key: fx.Node
    keys: int
    key_axis: int


def find_attentions(graph: fx.Graph) -> list[Attention]:
    """Every attention of a graph: the fused operator, and softmax(QK^T)V written out."""
    found: list[Attention] = []
    for node in graph.nodes:
        if node.target is SDPA:
            query, key = (_node(operand) for operand in node.args[:2])
            found.append(Attention(node, query, key, shape_of(key)[-2], -2))
        elif node.target is aten.softmax.int and (written := _written_out(node)):
            found.append(written)
    return found


def _node(value: Any) -> fx.Node:
    return value


def _written_out(softmax: fx.Node) -> Attention | None:
    scores = _node(softmax.args[0])
    while scores.target in _SCALING:
        scores = _node(scores.args[0])
    result = softmax
    while len(result.users) == 1 and result.target not in _PRODUCTS:
        [user] = result.users
        if user.target not in (*_SCALING, *_PRODUCTS):
            return None
        result = user
    if scores.target not in _PRODUCTS or result.target not in _PRODUCTS:
        return None
    if _node(result.args[0]) not in (softmax, *_trail(softmax, result)):
        return None
    query, key = (_node(operand) for operand in scores.args[:2])
    return Attention(result, query, key, shape_of(key)[-1], -1)


def _trail(start: fx.Node, end: fx.Node) -> list[fx.Node]:
    found: list[fx.Node] = []
    node = start
    while node is not end:
        [node] = node.users
        found.append(node)
    return found
