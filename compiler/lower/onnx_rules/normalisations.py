"""normalisations: mean and deviation of a value's own elements, then scale and shift.

All of it in float32 where the value is of a half type, with one rounding at the end, as in torch's
kernels: a square overflows float16 from 256 on, and a sum of a thousand keeps no digit in bfloat16.
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
    ints,
    number,
    operand,
    reshaped,
    shape_of,
    wide,
)


def _layer_norm(w: Writer, node: fx.Node) -> str:
    given: Any = args_of(node)[0]
    sides: Any = args_of(node)[1]
    dtype, within = dtype_of(given), wide(dtype_of(given))
    weight, bias = (argument(node, at, name, None) for at, name in ((2, "weight"), (3, "bias")))
    scale = (
        w.constant(torch.ones(*sides, dtype=within))
        if weight is None
        else operand(w, weight, within)
    )
    inputs = [operand(w, given, within), scale]
    if bias is not None:
        inputs.append(operand(w, bias, within))
    epsilon = float(argument(node, 4, "eps", 1e-5))
    found = w.add("LayerNormalization", inputs, axis=-len(sides), epsilon=epsilon)
    return cast(w, found, within, dtype)


def _group_norm(w: Writer, node: fx.Node) -> str:
    given, groups = args_of(node)[:2]
    return _instances(w, node, given, groups, float(argument(node, 4, "eps", 1e-5)), (2, 3))


def _instance_norm(w: Writer, node: fx.Node) -> str:
    given: Any = args_of(node)[0]
    return _instances(w, node, given, shape_of(given)[1], float(args_of(node)[7]), (1, 2))


def _instances(
    w: Writer, node: fx.Node, given: fx.Node, groups: int, epsilon: float, at: tuple[int, int]
) -> str:
    """Each group of channels by itself; where in the call its scale and shift stand."""
    shape, dtype = shape_of(given), dtype_of(given)
    within = wide(dtype)
    rows = [shape[0], groups, math.prod(shape[1:]) // groups]
    plain = [w.constant(fill(groups, dtype=within)) for fill in (torch.ones, torch.zeros)]
    wanted = reshaped(w, operand(w, given, within), rows)
    normed = w.add("InstanceNormalization", [wanted, *plain], epsilon=epsilon)
    found = reshaped(w, normed, shape)
    sides = [shape[1], *[1] * (len(shape) - 2)]
    for place, name, kind in zip(at, ("weight", "bias"), ("Mul", "Add"), strict=True):
        affine = argument(node, place, name, None)
        if affine is not None:
            found = w.add(kind, [found, reshaped(w, operand(w, affine, within), sides)])
    return cast(w, found, within, dtype)


def _batch_norm(w: Writer, node: fx.Node) -> str:
    """By the statistics of training, which are weights."""
    given, weight, bias, mean, variance = args_of(node)[:5]
    dtype, within = dtype_of(node), wide(dtype_of(node))
    channels = shape_of(given)[1]
    scale, shift = (
        w.constant(fill(channels, dtype=within)) if affine is None else operand(w, affine, within)
        for affine, fill in ((weight, torch.ones), (bias, torch.zeros))
    )
    inputs = [operand(w, given, within), scale, shift]
    inputs += [operand(w, statistic, within) for statistic in (mean, variance)]
    found = w.add("BatchNormalization", inputs, epsilon=float(args_of(node)[7]))
    return cast(w, found, within, dtype)


def _rms_norm(w: Writer, node: fx.Node) -> str:
    given: Any = args_of(node)[0]
    sides: Any = args_of(node)[1]
    dtype, within = dtype_of(given), wide(dtype_of(given))
    weight = argument(node, 2, "weight", None)
    epsilon = float(argument(node, 3, "eps", torch.finfo(dtype).eps))
    x = operand(w, given, within)
    axes = ints(w, [*range(-len(sides), 0)])
    mean = w.add("ReduceMean", [w.add("Mul", [x, x]), axes], keepdims=1)
    root = w.add("Sqrt", [w.add("Add", [mean, number(w, epsilon, within)])])
    found = w.add("Div", [x, root])
    if weight is not None:
        found = w.add("Mul", [found, operand(w, weight, within)])
    return cast(w, found, within, dtype_of(node))


RULES: dict[Any, Rule] = {
    aten.layer_norm.default: _layer_norm,
    aten.group_norm.default: _group_norm,
    aten.instance_norm.default: _instance_norm,
    aten.batch_norm.default: _batch_norm,
    aten.rms_norm.default: _rms_norm,
}
"""Values normalised."""


def _training(node: fx.Node) -> str | None:
    return f"{node.target} in training mode has no ONNX form here" if args_of(node)[5] else None


def _by_statistics(node: fx.Node) -> str | None:
    by_input = args_of(node)[5]
    return None if by_input else "an instance norm by running statistics has no ONNX form here"


REASONS = {aten.batch_norm.default: _training, aten.instance_norm.default: _by_statistics}
"""Why a call of them cannot be written."""
