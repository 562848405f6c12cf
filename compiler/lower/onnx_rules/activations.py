"""activations: functions of each element by itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from .arithmetic import bits_of_numbers
from .writing import (
    Reason,
    Rule,
    Writer,
    args_of,
    argument,
    aten,
    cast,
    dtype_of,
    number,
    operand,
    source,
    wide,
)


def _unary(kind: str) -> Rule:
    return lambda w, node: w.add(kind, [operand(w, args_of(node)[0], dtype_of(node))])


def _silu(w: Writer, node: fx.Node) -> str:
    x = source(w, node)
    return w.add("Mul", [x, w.add("Sigmoid", [x])])


def _rsqrt(w: Writer, node: fx.Node) -> str:
    return w.add("Reciprocal", [w.add("Sqrt", [source(w, node)])])


def _gelu(w: Writer, node: fx.Node) -> str:
    return w.add("Gelu", [source(w, node)], approximate=argument(node, 1, "approximate", "none"))


def _softplus(w: Writer, node: fx.Node) -> str:
    beta, threshold = argument(node, 1, "beta", 1), argument(node, 2, "threshold", 20)
    return _grown(w, node, beta, threshold)


def _mish(w: Writer, node: fx.Node) -> str:
    return w.add("Mul", [source(w, node), w.add("Tanh", [_grown(w, node, 1, 20)])])


def _grown(w: Writer, node: fx.Node, beta: float, threshold: float) -> str:
    """ln(1 + exp(beta x)) / beta; x itself beyond the threshold, where exp would overflow."""
    dtype, within = dtype_of(node), wide(dtype_of(node))
    x = operand(w, args_of(node)[0], within)
    scaled = w.add("Mul", [x, number(w, beta, within)]) if beta != 1 else x
    limit = number(w, threshold, within)
    grown = w.add("Softplus", [w.add("Min", [scaled, limit])])
    if beta != 1:
        grown = w.add("Div", [grown, number(w, beta, within)])
    found = w.add("Where", [w.add("Greater", [scaled, limit]), x, grown])
    return cast(w, found, within, dtype)


def _hardtanh(w: Writer, node: fx.Node) -> str:
    lowest, highest = argument(node, 1, "min_val", -1), argument(node, 2, "max_val", 1)
    return _bounded(w, node, lowest, highest)


def _clamp(w: Writer, node: fx.Node) -> str:
    return _bounded(w, node, argument(node, 1, "min", None), argument(node, 2, "max", None))


def _bounded(w: Writer, node: fx.Node, lowest: Any, highest: Any) -> str:
    dtype = dtype_of(node)
    found = operand(w, args_of(node)[0], dtype)
    for kind, bound in (("Max", lowest), ("Min", highest)):
        if bound is not None:
            found = w.add(kind, [found, operand(w, bound, dtype)])
    return found


def _leaky(w: Writer, node: fx.Node) -> str:
    slope = float(argument(node, 1, "negative_slope", 0.01))
    return w.add("LeakyRelu", [source(w, node)], alpha=slope)


def _elu(w: Writer, node: fx.Node) -> str:
    return w.add("Elu", [source(w, node)], alpha=float(argument(node, 1, "alpha", 1)))


def _square(w: Writer, node: fx.Node) -> str:
    x = source(w, node)
    return w.add("Mul", [x, x])


def _without_nan(w: Writer, node: fx.Node) -> str:
    dtype, x = dtype_of(node), source(w, node)
    limits = torch.finfo(dtype)
    defaults = (("nan", 0.0), ("posinf", limits.max), ("neginf", limits.min))
    zero, highest, lowest = (argument(node, at, *given) for at, given in enumerate(defaults, 1))
    found = w.add("Where", [w.add("IsNaN", [x]), number(w, zero, dtype), x])
    for value, up in ((highest, 1), (lowest, 0)):
        beyond = w.add("IsInf", [x], detect_positive=up, detect_negative=1 - up)
        found = w.add("Where", [beyond, number(w, value, dtype), found])
    return found


_UNARY = {
    aten.sigmoid.default: "Sigmoid", aten.exp.default: "Exp", aten.log.default: "Log",
    aten.sin.default: "Sin", aten.cos.default: "Cos", aten.tanh.default: "Tanh",
    aten.sqrt.default: "Sqrt", aten.neg.default: "Neg", aten.abs.default: "Abs",
    aten.relu.default: "Relu", aten.reciprocal.default: "Reciprocal", aten.erf.default: "Erf",
    aten.floor.default: "Floor", aten.ceil.default: "Ceil", aten.round.default: "Round",
    aten.sign.default: "Sign", aten.hardswish.default: "HardSwish",
    aten.logical_not.default: "Not",
}  # fmt: skip

RULES: dict[Any, Rule] = {
    **{target: _unary(kind) for target, kind in _UNARY.items()},
    **dict.fromkeys((aten.clamp.default, aten.clamp.Tensor), _clamp),
    aten.bitwise_not.default: _unary("Not"),
    aten.silu.default: _silu,
    aten.rsqrt.default: _rsqrt,
    aten.gelu.default: _gelu,
    aten.softplus.default: _softplus,
    aten.mish.default: _mish,
    aten.hardtanh.default: _hardtanh,
    aten.leaky_relu.default: _leaky,
    aten.elu.default: _elu,
    aten.square.default: _square,
    aten.nan_to_num.default: _without_nan,
}
"""Each element by itself."""


def _scaled_elu(node: fx.Node) -> str | None:
    scales = argument(node, 2, "scale", 1), argument(node, 3, "input_scale", 1)
    return None if scales == (1, 1) else "a scaled elu has no ONNX form here"


def _rounded_to_places(node: fx.Node) -> str | None:
    return (
        None if dtype_of(node).is_floating_point else "rounding of integers has no ONNX form here"
    )


def _of_integers(node: fx.Node) -> str | None:
    given = dtype_of(node).is_floating_point
    return None if given else "nan_to_num of integers has no ONNX form here"


REASONS: dict[Any, Reason] = {
    aten.elu.default: _scaled_elu,
    aten.round.default: _rounded_to_places,
    aten.nan_to_num.default: _of_integers,
    aten.bitwise_not.default: bits_of_numbers,
}
"""Why a call of them cannot be written."""
