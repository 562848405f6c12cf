"""products: matrix products, and the convolutions.

A weight stays as the state dict has it: `Gemm` with `transB`, between two reshapes that copy
nothing. A product of half types is one of its own type here: what it adds up in is the engine's.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from .writing import (
    Rule,
    Writer,
    args_of,
    argument,
    aten,
    cast,
    dtype_of,
    each,
    ints,
    operand,
    reshaped,
    shape_of,
    wide,
)


def _linear(w: Writer, node: fx.Node) -> str:
    x: Any = args_of(node)[0]
    inputs = [w.name(given) for given in args_of(node) if isinstance(given, fx.Node)]
    shape = shape_of(x)
    if len(shape) != 2:
        inputs[0] = reshaped(w, inputs[0], [math.prod(shape[:-1]), shape[-1]])
    product = w.add("Gemm", inputs, transB=1)
    return product if len(shape) == 2 else reshaped(w, product, shape_of(node))


def _added_product(w: Writer, node: fx.Node) -> str:
    """What is added comes first, then the two factors: addmm and baddbmm."""
    added, first, second = args_of(node)[:3]
    beta, alpha = (float(node.kwargs.get(name, 1)) for name in ("beta", "alpha"))  # type: ignore[arg-type]
    dtype = dtype_of(node)
    if beta == alpha == 1:
        product = w.add("MatMul", [w.name(first), w.name(second)])
        return w.add("Add", [w.name(added), product])
    within = wide(dtype)
    product = w.add("MatMul", [operand(w, given, within) for given in (first, second)])
    if alpha != 1:
        product = w.add("Mul", [product, operand(w, alpha, within)])
    if beta != 0:  # what is multiplied by zero counts for nothing, infinities too
        term = operand(w, added, within)
        term = term if beta == 1 else w.add("Mul", [term, operand(w, beta, within)])
        product = w.add("Add", [term, product])
    return cast(w, product, within, dtype)


def _matmul(w: Writer, node: fx.Node) -> str:
    return w.add("MatMul", [w.name(given) for given in args_of(node)[:2]])


def _outer(w: Writer, node: fx.Node) -> str:
    first, second = (operand(w, given, dtype_of(node)) for given in args_of(node)[:2])
    return w.add("Mul", [w.add("Unsqueeze", [first, ints(w, [1])]), second])


def _einsum(w: Writer, node: fx.Node) -> str:
    """ONNX has none of bfloat16; it stands in float32, which holds every product of two."""
    equation, operands = args_of(node)[:2]
    dtype = dtype_of(node)
    within = torch.float32 if dtype == torch.bfloat16 else dtype
    found = w.add("Einsum", [operand(w, given, within) for given in operands], equation=equation)
    return cast(w, found, within, dtype)


def _convolution(w: Writer, node: fx.Node) -> str:
    rank = len(shape_of(node)) - 2
    defaults = (("stride", 1), ("padding", 0), ("dilation", 1))
    stride, padding, dilation = (argument(node, at, *given) for at, given in enumerate(defaults, 3))
    strides, dilations = each(stride, rank), each(dilation, rank)
    kernel = shape_of(args_of(node)[1])[2:]
    inputs = [w.name(given) for given in args_of(node)[:3] if isinstance(given, fx.Node)]
    return w.add(
        "Conv", inputs, strides=strides, pads=_pads(padding, kernel, dilations),
        dilations=dilations, group=argument(node, 6, "groups", 1),
    )  # fmt: skip


def _pads(given: Any, kernel: tuple[int, ...], dilations: list[int]) -> list[int]:
    """Beginnings, then ends; an odd number of them leaves one more at the end, as torch has it."""
    if not isinstance(given, str):
        return [*each(given, len(kernel)), *each(given, len(kernel))]
    if given == "valid":
        return [0] * (2 * len(kernel))
    both = [step * (side - 1) for side, step in zip(kernel, dilations, strict=True)]
    return [*(total // 2 for total in both), *(total - total // 2 for total in both)]


def _transposed(w: Writer, node: fx.Node) -> str:
    rank = len(shape_of(node)) - 2
    defaults = (
        ("stride", 1),
        ("padding", 0),
        ("output_padding", 0),
        ("groups", 1),
        ("dilation", 1),
    )
    found = [argument(node, at, *given) for at, given in enumerate(defaults, 3)]
    strides, pads, further, _, dilations = (each(value, rank) for value in found)
    inputs = [w.name(given) for given in args_of(node)[:3] if isinstance(given, fx.Node)]
    return w.add(
        "ConvTranspose", inputs, strides=strides, pads=[*pads, *pads], dilations=dilations,
        output_padding=further, group=found[3],
    )  # fmt: skip


RULES: dict[Any, Rule] = {
    **dict.fromkeys((aten.matmul.default, aten.bmm.default, aten.mm.default), _matmul),
    **dict.fromkeys((aten.addmm.default, aten.baddbmm.default), _added_product),
    **dict.fromkeys(
        (
            aten.conv1d.default,
            aten.conv2d.default,
            aten.conv3d.default,
            aten.conv1d.padding,
            aten.conv2d.padding,
            aten.conv3d.padding,
        ),
        _convolution,
    ),
    **dict.fromkeys(
        (aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input),
        _transposed,
    ),
    aten.linear.default: _linear,
    aten.einsum.default: _einsum,
    aten.outer.default: _outer,
}
"""Sums of products."""


def _unspelled(node: fx.Node) -> str | None:
    plain = "..." not in args_of(node)[0]
    return None if plain else "an einsum with an ellipsis has no ONNX form here"


REASONS = {aten.einsum.default: _unspelled}
"""Why a call of them cannot be written."""
