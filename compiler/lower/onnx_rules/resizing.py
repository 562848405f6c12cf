"""resizing: images made larger or smaller, by interpolation or by windows."""

from __future__ import annotations

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
    shape_of,
    source,
    wide,
)


def _nearest(w: Writer, node: fx.Node) -> str:
    return _resized(w, node, 2, mode="nearest", nearest_mode="floor",
                    coordinate_transformation_mode="asymmetric")  # fmt: skip


def _nearest_exact(w: Writer, node: fx.Node) -> str:
    return _resized(w, node, 2, mode="nearest", nearest_mode="round_prefer_ceil",
                    coordinate_transformation_mode="half_pixel")  # fmt: skip


def _interpolated(mode: str) -> Rule:
    def rule(w: Writer, node: fx.Node) -> str:
        corners = bool(argument(node, 2, "align_corners", False))
        where = "align_corners" if corners else "pytorch_half_pixel"
        further = {"cubic_coeff_a": -0.75} if mode == "cubic" else {}
        return _resized(w, node, 3, mode=mode, coordinate_transformation_mode=where, **further)

    return rule


def _resized(w: Writer, node: fx.Node, scales_at: int, **attributes: Any) -> str:
    """By the factors where the call names them, since torch then steps by them, else by size."""
    factors: Any = argument(node, scales_at, "scale_factors", None)
    if factors is None:
        inputs = [source(w, node), "", "", ints(w, shape_of(node))]
    else:
        steps = torch.tensor([1.0, 1.0, *factors], dtype=torch.float32)
        inputs = [source(w, node), "", w.constant(steps)]
    return w.add("Resize", inputs, **attributes)


def _average(w: Writer, node: fx.Node) -> str:
    """A sum, so in float32 for the half types."""
    rank = len(shape_of(node)) - 2
    kernel, strides, pads = _window(node, rank)
    dtype, within = dtype_of(node), wide(dtype_of(node))
    found = w.add(
        "AveragePool", [operand(w, args_of(node)[0], within)], kernel_shape=kernel,
        strides=strides, pads=[*pads, *pads], ceil_mode=int(argument(node, 4, "ceil_mode", False)),
        count_include_pad=int(argument(node, 5, "count_include_pad", True)),
    )  # fmt: skip
    return cast(w, found, within, dtype)


def _window(node: fx.Node, rank: int) -> tuple[list[int], list[int], list[int]]:
    defaults = (("kernel_size", 2), ("stride", ()), ("padding", 0))
    kernel, strides, pads = (
        each(argument(node, at, *given), rank) for at, given in enumerate(defaults, 1)
    )
    return kernel, strides or kernel, pads


def _maximum(w: Writer, node: fx.Node) -> str:
    rank = len(shape_of(node)) - 2
    kernel, strides, pads = _window(node, rank)
    return w.add(
        "MaxPool", [source(w, node)], kernel_shape=kernel, strides=strides, pads=[*pads, *pads],
        dilations=each(argument(node, 4, "dilation", 1), rank),
        ceil_mode=int(argument(node, 5, "ceil_mode", False)),
    )  # fmt: skip


def _average_to_size(w: Writer, node: fx.Node) -> str:
    """Along each axis a product with a constant: parts may overlap, and differ in length by one."""
    given: Any = args_of(node)[0]
    dtype, within = dtype_of(node), wide(dtype_of(node))
    before, after = shape_of(given), shape_of(node)
    found = operand(w, given, within)
    if before[-1] != after[-1]:
        shares = _shares(before[-1], after[-1]).to(within)
        found = w.add("MatMul", [found, w.constant(shares.T.contiguous())])
    if len(args_of(node)[1]) == 2 and before[-2] != after[-2]:
        found = w.add("MatMul", [w.constant(_shares(before[-2], after[-2]).to(within)), found])
    return w.add("Cast", [found], to=dtype)


def _shares(side: int, parts: int) -> torch.Tensor:
    """What each place counts in the mean of each part."""
    table = torch.zeros(parts, side, dtype=torch.float64)
    for part in range(parts):
        first, end = part * side // parts, -(-(part + 1) * side // parts)
        table[part, first:end] = 1 / (end - first)
    return table


RULES: dict[Any, Rule] = {
    **dict.fromkeys(
        (aten.upsample_nearest1d.vec, aten.upsample_nearest2d.vec, aten.upsample_nearest3d.vec),
        _nearest,
    ),
    **dict.fromkeys(
        (
            aten._upsample_nearest_exact1d.vec,
            aten._upsample_nearest_exact2d.vec,
            aten._upsample_nearest_exact3d.vec,
        ),
        _nearest_exact,
    ),
    **dict.fromkeys(
        (aten.upsample_linear1d.vec, aten.upsample_bilinear2d.vec, aten.upsample_trilinear3d.vec),
        _interpolated("linear"),
    ),
    **dict.fromkeys(
        (aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default), _average
    ),
    **dict.fromkeys((aten.max_pool2d.default, aten.max_pool3d.default), _maximum),
    **dict.fromkeys(
        (aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default), _average_to_size
    ),
    aten.upsample_bicubic2d.vec: _interpolated("cubic"),
}
"""Images of another size."""


def _divided(node: fx.Node) -> str | None:
    if argument(node, 6, "divisor_override", None) is not None:
        return "average pooling with a divisor of its own has no ONNX form here"
    return None


REASONS = dict.fromkeys((aten.avg_pool2d.default, aten.avg_pool3d.default), _divided)
"""Why a call of them cannot be written."""
