"""Floating-point operations of a graph: two per multiply-add of every product, nothing else.

Norms, activations and copies are left out, as is the custom for these networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten


def flops_of(node: fx.Node) -> int:
    """Operations of one node; 0 for what multiplies no matrices."""
    count = MULTIPLIERS.get(node.target)
    return 2 * count(node) if count else 0


def count_flops(graph: fx.Graph) -> dict[str, int]:
    """Operations by node name, of the nodes that have any, in the order of the graph."""
    counted = ((node.name, flops_of(node)) for node in graph.nodes)
    return {name: flops for name, flops in counted if flops}


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(int(side) for side in node.meta["val"].shape)


def _linear(node: fx.Node) -> int:
    return math.prod(_shape(node)) * _shape(node.args[1])[1]


def _convolution(node: fx.Node) -> int:
    # A weight holds, per output channel, its group's input channels times the kernel.
    return math.prod(_shape(node)) * math.prod(_shape(node.args[1])[1:])


def _transposed(node: fx.Node) -> int:
    return math.prod(_shape(node.args[0])) * math.prod(_shape(node.args[1])[1:])


def _matmul(node: fx.Node) -> int:
    return math.prod(_shape(node)) * _shape(node.args[0])[-1]


def _added(node: fx.Node) -> int:
    return math.prod(_shape(node)) * _shape(node.args[1])[-1]


def _attention(node: fx.Node) -> int:
    query, key, value = (_shape(operand) for operand in node.args[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _einsum(node: fx.Node) -> int:
    equation: Any = node.args[0]
    operands: Any = node.args[1]
    sides: dict[str, int] = {}
    for letters, operand in zip(
        equation.replace(" ", "").split("->")[0].split(","), operands, strict=True
    ):
        sides.update(zip(letters, _shape(operand), strict=False))
    return math.prod(sides.values())


MULTIPLIERS: dict[Any, Callable[[fx.Node], int]] = {
    aten.linear.default: _linear,
    **dict.fromkeys(
        (
            aten.conv1d.default,
            aten.conv2d.default,
            aten.conv3d.default,
            aten.conv1d.padding,
            aten.conv2d.padding,
            aten.conv3d.padding,
            aten.convolution.default,
        ),
        _convolution,
    ),
    aten.conv_transpose1d.default: _transposed,
    aten.conv_transpose2d.input: _transposed,
    aten.conv_transpose3d.input: _transposed,
    aten.matmul.default: _matmul,
    aten.mm.default: _matmul,
    aten.bmm.default: _matmul,
    aten.addmm.default: _added,
    aten.baddbmm.default: _added,
    aten.scaled_dot_product_attention.default: _attention,
    aten.einsum.default: _einsum,
}
"""Multiply-adds of each operator that multiplies."""
