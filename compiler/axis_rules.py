"""How each operator carries the factors of its operands to its result (views: `axis_views`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from turbo4d.compiler.axis_views import VIEWS, Known, Rule, ints, operators, unknown
from turbo4d.compiler.factors import Axes, Axis, fresh, length, resized
from turbo4d.compiler.node_values import shape_of

aten = torch.ops.aten
# The letter of a count from zero.
POSITION = "p"


def carry(node: fx.Node, known: Known, stream: frozenset[str]) -> Axes:
    """The axes of a node's value, from those of its operands.

    Args:
        node: a call.
        known: gives the axes of any operand.
        stream: nodes that depend on the sample; their axes win over those of conditioning.
    """
    if not isinstance(node.meta.get("val"), torch.Tensor):
        return ()
    rule = _RULES.get(node.target)
    axes = rule(node, known) if rule else _elementwise(node, known, stream)
    if tuple(map(length, axes)) != shape_of(node):
        return unknown(node)
    return axes


def _elementwise(node: fx.Node, known: Known, stream: frozenset[str]) -> Axes:
    """Operands aligned from the right; per axis the best informed operand speaks."""
    shape = shape_of(node)
    operands = [operand for operand in node.all_input_nodes if _is_tensor(operand)]
    best: list[tuple[int, Axis]] = [(-1, axis) for axis in unknown(node)]
    for operand in operands:
        for back, axis in enumerate(reversed(known(operand)), 1):
            if back > len(shape) or length(axis) != shape[-back]:
                continue
            doubtful = any(atom.root.letter == "?" for atom in axis)
            score = 2 * (not doubtful) + (operand.name in stream)
            if score > best[-back][0]:
                best[-back] = (score, axis)
    return tuple(axis for _, axis in best)


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def _same(node: fx.Node, known: Known) -> Axes:
    return known(node.args[0])


def _linear(node: fx.Node, known: Known) -> Axes:
    return (*known(node.args[0])[:-1], fresh("C", shape_of(node)[-1]))


def _convolution(node: fx.Node, known: Known) -> Axes:
    axes, shape = known(node.args[0]), shape_of(node)
    space = (resized(axis, side) for axis, side in zip(axes[2:], shape[2:], strict=True))
    return (axes[0], fresh("C", shape[1]), *space)


def _interpolate(node: fx.Node, known: Known) -> Axes:
    axes, shape = known(node.args[0]), shape_of(node)
    return tuple(resized(axis, side) for axis, side in zip(axes, shape, strict=True))


def _matmul(node: fx.Node, known: Known) -> Axes:
    left, right = known(node.args[0]), known(node.args[1])
    if len(left) < 2 or len(right) < 2:
        return unknown(node)
    batch = left[:-2] if len(left) >= len(right) else right[:-2]
    return (*batch, left[-2], right[-1])


def _added_matmul(node: fx.Node, known: Known) -> Axes:
    left, right = known(node.args[1]), known(node.args[2])
    return (*left[:-1], right[-1])


def _attention(node: fx.Node, known: Known) -> Axes:
    return (*known(node.args[0])[:-1], known(node.args[2])[-1])


def _reduce(node: fx.Node, known: Known) -> Axes:
    axes = known(node.args[0])
    over = {index % len(axes) for index in ints(node.args[1] if len(node.args) > 1 else None)}
    over = over or set(range(len(axes)))
    if len(shape_of(node)) == len(axes):
        return tuple(() if index in over else axis for index, axis in enumerate(axes))
    return tuple(axis for index, axis in enumerate(axes) if index not in over)


def _einsum(node: fx.Node, known: Known) -> Axes:
    equation: Any = node.args[0]
    operands: Any = node.args[1]
    sources, _, result = equation.replace(" ", "").partition("->")
    named: dict[str, Axis] = {}
    for letters, operand in zip(sources.split(","), operands, strict=True):
        for letter, axis in zip(letters, known(operand), strict=False):
            named.setdefault(letter, axis)
    if not result or any(letter not in named for letter in result):
        return unknown(node)
    return tuple(named[letter] for letter in result)


def _count(node: fx.Node, known: Known) -> Axes:
    return (fresh(POSITION, shape_of(node)[0], str(node.target)),)


_RULES: Mapping[Any, Rule] = {
    **VIEWS,
    **dict.fromkeys(
        operators(
            "layer_norm", "group_norm", "rms_norm", "instance_norm", "softmax.int", "_softmax",
            "clone", "_to_copy", "roll", "flip", "cumsum", "contiguous",
        ),
        _same,
    ),
    **dict.fromkeys(
        operators("conv1d", "conv2d", "conv3d", "conv1d.padding", "conv2d.padding",
                   "conv3d.padding", "convolution", "conv_transpose1d", "conv_transpose2d.input",
                   "conv_transpose3d.input"),
        _convolution,
    ),
    **dict.fromkeys(
        operators(
            "upsample_nearest1d.vec", "upsample_nearest2d.vec", "upsample_nearest3d.vec",
            "upsample_bilinear2d.vec", "upsample_bicubic2d.vec", "upsample_trilinear3d.vec",
            "upsample_nearest2d", "upsample_bilinear2d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
            "max_pool2d", "adaptive_avg_pool2d", "index_select", "pad", "constant_pad_nd",
            "reflection_pad2d",
            "replication_pad2d",
        ),
        _interpolate,
    ),
    **dict.fromkeys(operators("matmul", "bmm", "mm"), _matmul),
    **dict.fromkeys(operators("addmm", "baddbmm"), _added_matmul),
    **dict.fromkeys(operators("mean.dim", "sum.dim_IntList", "amax", "amin", "var.correction",
                               "linalg_vector_norm"), _reduce),
    **dict.fromkeys(operators("arange", "arange.start", "arange.start_step"), _count),
    aten.linear.default: _linear,
    aten.scaled_dot_product_attention.default: _attention,
    aten.einsum.default: _einsum,
}  # fmt: skip
