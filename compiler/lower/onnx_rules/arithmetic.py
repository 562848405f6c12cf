"""arithmetic: of two or three values, element by element: sums, comparisons, truths.

A number among the operands keeps all its digits, as torch has it: where a half type would round it,
the call stands in float32 between casts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from .writing import (
    HALVES,
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
    wide,
)


def _binary(kind: str, *, swapped: bool = False) -> Rule:
    def rule(w: Writer, node: fx.Node) -> str:
        dtype = dtype_of(node)
        given = [*args_of(node)[:2]]
        alpha: Any = argument(node, 2, "alpha", 1)
        if swapped:
            given.reverse()
        exact = all(_fits(value, dtype) for value in (*given, alpha))
        within = dtype if exact else wide(dtype)
        first, second = (operand(w, value, within) for value in given)
        if alpha != 1:
            second = w.add("Mul", [second, number(w, alpha, within)])
        return cast(w, w.add(_of_truths(kind, dtype), [first, second]), within, dtype)

    return rule


def _fits(value: Any, dtype: torch.dtype) -> bool:
    if isinstance(value, fx.Node) or dtype not in HALVES:
        return True
    return float(torch.tensor(value, dtype=dtype)) == float(value)


def _of_truths(kind: str, dtype: torch.dtype) -> str:
    return {"Mul": "And", "Add": "Or"}.get(kind, kind) if dtype == torch.bool else kind


def _compared(kind: str, *, negated: bool = False) -> Rule:
    def rule(w: Writer, node: fx.Node) -> str:
        first, second = args_of(node)[:2]
        dtype = _common(first, second)
        found = w.add(kind, [operand(w, first, dtype), operand(w, second, dtype)])
        return w.add("Not", [found]) if negated else found

    return rule


def _common(first: Any, second: Any) -> torch.dtype:
    """What two operands are compared in; of a half type and a number, so that it is not rounded."""
    values = [each.meta["val"] if isinstance(each, fx.Node) else each for each in (first, second)]
    found = torch.result_type(*values)
    return found if all(_fits(each, found) for each in (first, second)) else wide(found)


def _logical(kind: str) -> Rule:
    return lambda w, node: w.add(
        kind, [operand(w, given, torch.bool) for given in args_of(node)[:2]]
    )


def _divided(w: Writer, node: fx.Node) -> str:
    """A quotient, rounded down or towards zero where the call says so."""
    dtype = dtype_of(node)
    way = node.kwargs.get("rounding_mode")
    within = wide(dtype)
    first, second = (operand(w, given, within) for given in args_of(node)[:2])
    if not dtype.is_floating_point:  # ONNX divides whole numbers towards zero
        if way == "floor":
            first = w.add("Sub", [first, w.add("Mod", [first, second])])
        return w.add("Div", [first, second])
    found = w.add("Div", [first, second])
    if way == "floor":
        found = w.add("Floor", [found])
    elif way == "trunc":
        found = w.add("Mul", [w.add("Sign", [found]), w.add("Floor", [w.add("Abs", [found])])])
    return cast(w, found, within, dtype)


def _extreme(kind: str) -> Rule:
    return lambda w, node: w.add(
        kind, [operand(w, given, dtype_of(node)) for given in args_of(node)[:2]]
    )


def _lerp(w: Writer, node: fx.Node) -> str:
    """In float32 for the half types: torch rounds once, and an end near its start cancels."""
    dtype, within = dtype_of(node), wide(dtype_of(node))
    start, end, weight = (operand(w, given, within) for given in args_of(node)[:3])
    found = w.add("Add", [start, w.add("Mul", [weight, w.add("Sub", [end, start])])])
    return cast(w, found, within, dtype)


def _added(kind: str) -> Rule:
    """`addcmul`, `addcdiv`: a value plus a product or a quotient of two others, rounded once."""

    def rule(w: Writer, node: fx.Node) -> str:
        dtype, within = dtype_of(node), wide(dtype_of(node))
        base, first, second = (operand(w, given, within) for given in args_of(node)[:3])
        term = w.add(kind, [first, second])
        value: Any = node.kwargs.get("value", 1)
        if value != 1:
            term = w.add("Mul", [term, number(w, value, within)])
        return cast(w, w.add("Add", [base, term]), within, dtype)

    return rule


_BINARY = {
    aten.add.Tensor: "Add", aten.sub.Tensor: "Sub", aten.mul.Tensor: "Mul", aten.div.Tensor: "Div",
    aten.add.Scalar: "Add", aten.sub.Scalar: "Sub", aten.mul.Scalar: "Mul", aten.div.Scalar: "Div",
    aten.pow.Tensor_Scalar: "Pow", aten.pow.Tensor_Tensor: "Pow", aten.pow.Scalar: "Pow",
}  # fmt: skip
_COMPARED = {
    aten.eq: "Equal", aten.gt: "Greater", aten.ge: "GreaterOrEqual", aten.lt: "Less",
    aten.le: "LessOrEqual",
}  # fmt: skip
_LOGICAL = {
    aten.logical_and.default: "And", aten.logical_or.default: "Or", aten.logical_xor.default: "Xor",
    aten.bitwise_and.Tensor: "And", aten.bitwise_or.Tensor: "Or", aten.__and__.Tensor: "And",
    aten.__or__.Tensor: "Or",
}  # fmt: skip

RULES: dict[Any, Rule] = {
    **{target: _binary(kind) for target, kind in _BINARY.items()},
    **{form: _compared(kind) for op, kind in _COMPARED.items() for form in (op.Tensor, op.Scalar)},
    **dict.fromkeys((aten.ne.Tensor, aten.ne.Scalar), _compared("Equal", negated=True)),
    **{target: _logical(kind) for target, kind in _LOGICAL.items()},
    **dict.fromkeys((aten.rsub.Scalar, aten.rsub.Tensor), _binary("Sub", swapped=True)),
    **dict.fromkeys((aten.div.Tensor_mode, aten.div.Scalar_mode), _divided),
    **dict.fromkeys((aten.lerp.Tensor, aten.lerp.Scalar), _lerp),
    **dict.fromkeys((aten.maximum.default, aten.clamp_min.default), _extreme("Max")),
    **dict.fromkeys((aten.minimum.default, aten.clamp_max.default), _extreme("Min")),
    aten.addcmul.default: _added("Mul"),
    aten.addcdiv.default: _added("Div"),
}
"""Several values, element by element."""


def bits_of_numbers(node: fx.Node) -> str | None:
    """ONNX's `And`, `Or` and `Not` are of truths."""
    if dtype_of(node) == torch.bool:
        return None
    return f"bits of {dtype_of(node)} have no ONNX form here, only truths"


REASONS: dict[Any, Reason] = dict.fromkeys(
    (
        aten.bitwise_and.Tensor,
        aten.bitwise_or.Tensor,
        aten.__and__.Tensor,
        aten.__or__.Tensor,
    ),
    bits_of_numbers,
)
"""Why a call of them cannot be written."""
