"""work: what a graph asks of a machine, counted call by call, before any machine is named.

Beside operations and bytes (`flops`, `traffic`) it counts what two numbers miss on small networks:
functions such as exp, groups of an attention, calls, and the copies that a library of products
makes of its operands where it wants them in an order of its own.
"""

from __future__ import annotations

import math
import operator
from dataclasses import astuple, dataclass, replace
from typing import Any

from torch import fx
from turbo4d.compiler.flops import flops_of
from turbo4d.compiler.fresh_memory import fresh_bytes, largest_value
from turbo4d.compiler.traffic import bytes_of, value_bytes
from turbo4d.passes.base import aten

# Products fill vectors or tiles of this many output channels, whether there are as many or not.
_LANES = 16
# An attention over many queries takes them in blocks of this many, each with products of its own.
_QUERY_BLOCK = 64
_FUNCTIONS = frozenset(
    (
        aten.gelu.default, aten.silu.default, aten.sigmoid.default, aten.tanh.default,
        aten.exp.default, aten.erf.default, aten.sin.default, aten.cos.default,
        aten.softmax.int, aten.softplus.default, aten.mish.default,
    )
)  # fmt: skip
# Moments first, then the values: what is normed is read twice.
_NORMS = frozenset((aten.layer_norm.default, aten.group_norm.default, aten.rms_norm.default))
_CONVOLUTIONS = frozenset(
    (
        aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.conv1d.padding,
        aten.conv2d.padding, aten.conv3d.padding, aten.convolution.default,
    )
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What calls ask of a machine; sums of calls are sums of each field.

    Args:
        flops: operations of products, output channels filled up to whole vectors.
        bytes: read and written, nothing fused.
        packed_bytes: read and written besides, by a library that copies the operands of products
            into an order of its own, and adds a bias by writing it first.
        functions: how often a function such as exp is evaluated.
        groups: of attentions, each with products of its own.
        calls: of operators that compute or copy.
        fresh_bytes: of memory that the system is asked for anew (`fresh_memory`).
    """

    flops: int = 0
    bytes: int = 0
    packed_bytes: int = 0
    functions: int = 0
    groups: int = 0
    calls: int = 0
    fresh_bytes: int = 0

    def __add__(self, other: Work) -> Work:
        """Both, one after the other."""
        return Work(*map(operator.add, astuple(self), astuple(other)))

    def __sub__(self, other: Work) -> Work:
        """What one asks more than another; counts may fall below 0."""
        return Work(*map(operator.sub, astuple(self), astuple(other)))


def work_of(node: fx.Node) -> Work:
    """What one call asks; nothing where it is a view or no call."""
    moved = bytes_of(node)
    if not moved:
        return Work()
    attention = node.target is aten.scaled_dot_product_attention.default
    return Work(
        flops=round(flops_of(node) * _filled(node)),
        bytes=moved + (value_bytes(_operand(node, 0)) if node.target in _NORMS else 0),
        packed_bytes=_packed(node),
        functions=_scores(node) if attention else _evaluations(node),
        groups=_groups(node) if attention else 0,
        calls=1,
    )


def work_of_graph(graph: fx.Graph, largest: int | None = None) -> Work:
    """What all calls of a graph ask.

    Args:
        graph: with the shapes of its values.
        largest: bytes of the largest value the process frees; None for the graph's own.
    """
    total = Work()
    for node in graph.nodes:
        total += work_of(node)
    fresh = fresh_bytes(graph, largest_value(graph) if largest is None else largest)
    return replace(total, fresh_bytes=fresh)


def _operand(node: fx.Node, place: int) -> fx.Node:
    operand: Any = node.args[place]
    return operand


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(int(side) for side in node.meta["val"].shape)


def _filled(node: fx.Node) -> float:
    """Output channels with the idle lanes of the last vector, as a share of the channels."""
    if node.target is not aten.linear.default and node.target not in _CONVOLUTIONS:
        return 1.0
    channels = _shape(_operand(node, 1))[0]
    return math.ceil(channels / _LANES) * _LANES / channels


def _packed(node: fx.Node) -> int:
    """A copy is one reading and one writing."""
    if node.target is aten.linear.default:
        biased = len(node.args) > 2 and node.args[2] is not None
        left = value_bytes(_operand(node, 0))
        return 2 * (left + (value_bytes(node) if biased else 0))
    if node.target in _CONVOLUTIONS:
        return 2 * (sum(map(value_bytes, node.all_input_nodes)) + value_bytes(node))
    return 0


def _evaluations(node: fx.Node) -> int:
    return math.prod(_shape(node)) if node.target in _FUNCTIONS else 0


def _scores(node: fx.Node) -> int:
    query, key = _shape(_operand(node, 0)), _shape(_operand(node, 1))
    return math.prod(query[:-1]) * key[-2]


def _groups(node: fx.Node) -> int:
    query = _shape(_operand(node, 0))
    return math.prod(query[:-2]) * math.ceil(query[-2] / _QUERY_BLOCK)
