"""reductions: sums, means, extremes and order along axes.

Sums and means of half types add up in float32 between two casts, as torch's do.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from .writing import (
    Rule,
    Writer,
    args_of,
    argument,
    aten,
    axes_of,
    cast,
    dtype_of,
    ints,
    operand,
    reshaped,
    shape_of,
    side_of,
    wide,
)


def _reduced(kind: str) -> Rule:
    def rule(w: Writer, node: fx.Node) -> str:
        given: Any = args_of(node)[0]
        dtype, rank = dtype_of(node), len(shape_of(given))
        within = wide(dtype)
        over = args_of(node)[1] if len(args_of(node)) > 1 else None
        keep = bool(rank) and len(shape_of(node)) == rank
        inputs = [operand(w, given, within), ints(w, axes_of(over, rank))]
        return cast(w, w.add(kind, inputs, keepdims=int(keep)), within, dtype)

    return rule


def _truths(kind: str) -> Rule:
    """`any`, `all`: the largest or smallest of zeros and ones."""

    def rule(w: Writer, node: fx.Node) -> str:
        given: Any = args_of(node)[0]
        rank = len(shape_of(given))
        over = args_of(node)[1] if len(args_of(node)) > 1 else None
        bits = w.add("Cast", [operand(w, given, torch.bool)], to=torch.int32)
        keep = int(bool(rank) and len(shape_of(node)) == rank)
        found = w.add(kind, [bits, ints(w, axes_of(over, rank))], keepdims=keep)
        return w.add("Cast", [found], to=torch.bool)

    return rule


def _length(w: Writer, node: fx.Node) -> str:
    """The 1- or 2-norm along axes."""
    given: Any = args_of(node)[0]
    rank, within = len(shape_of(given)), wide(dtype_of(node))
    kind = {1: "ReduceL1", 2: "ReduceL2"}[int(argument(node, 1, "ord", 2))]
    keep = int(bool(rank) and len(shape_of(node)) == rank)
    over = argument(node, 2, "dim", None)
    inputs = [operand(w, given, within), ints(w, axes_of(over, rank))]
    return cast(w, w.add(kind, inputs, keepdims=keep), within, dtype_of(node))


def _spread(w: Writer, node: fx.Node) -> str:
    """`var`: the mean of the squared distances from the mean, or a little more."""
    given: Any = args_of(node)[0]
    dtype, shape = dtype_of(node), shape_of(given)
    within = wide(dtype)
    over = args_of(node)[1] if len(args_of(node)) > 1 else None
    axes = axes_of(over, len(shape))
    count = 1
    for axis in axes:
        count *= shape[axis]
    correction = float(node.kwargs.get("correction", 1))  # type: ignore[arg-type]
    x, where = operand(w, given, within), ints(w, axes)
    apart = w.add("Sub", [x, w.add("ReduceMean", [x, where], keepdims=1)])
    keep = int(len(shape_of(node)) == len(shape))
    summed = w.add("ReduceSumSquare", [apart, where], keepdims=keep)
    found = w.add("Div", [summed, operand(w, count - correction, within)])
    return cast(w, found, within, dtype)


def _running_sum(w: Writer, node: fx.Node) -> str:
    given, axis = args_of(node)[:2]
    dtype, within = dtype_of(node), wide(dtype_of(node))
    where = operand(w, axis % len(shape_of(given)), torch.int64)
    return cast(w, w.add("CumSum", [operand(w, given, within), where]), within, dtype)


def _first_of_extremes(kind: str) -> Rule:
    """Its place along an axis, or in all elements; TensorRT wants two axes at the least."""

    def rule(w: Writer, node: fx.Node) -> str:
        given: Any = args_of(node)[0]
        axis: int | None = argument(node, 1, "dim", None)
        name = w.name(given)
        if axis is None or len(shape_of(given)) < 2:
            name, axis = reshaped(w, name, [1, -1]), 1
        at = axis % max(2, len(shape_of(given)))
        found = w.add(kind, [name], axis=at, keepdims=1)
        return reshaped(w, found, shape_of(node))

    return rule


def _sorted(w: Writer, node: fx.Node) -> tuple[str, ...]:
    """Of equal values ONNX has the first one first, which is torch's stable order.

    Where nothing reads but a beginning of the order, no more is sorted: an engine's limit on how
    many it can sort (3,840 in TensorRT) then holds for what is kept, not for all tokens.
    """
    given: Any = args_of(node)[0]
    stable = node.target is aten.sort.stable
    axis = argument(node, 2 if stable else 1, "dim", -1) % len(shape_of(given))
    largest = bool(argument(node, 3 if stable else 2, "descending", False))
    return _first(w, given, _read(node, axis, side_of(given, axis)), axis, largest)


def _first(w: Writer, given: fx.Node, count: int, axis: int, largest: bool) -> tuple[str, ...]:
    """The first of an order, and their places; ONNX orders no bfloat16, so it is float32 there."""
    dtype = dtype_of(given)
    within = torch.float32 if dtype == torch.bfloat16 else dtype
    inputs = [operand(w, given, within), ints(w, [count])]
    values, places = w.add_several("TopK", inputs, 2, axis=axis, largest=int(largest), sorted=1)
    return cast(w, values, within, dtype), places


def _read(node: fx.Node, axis: int, side: int) -> int:
    """How many places from the first are read of either result."""
    last = 0
    for part in node.users:
        for user in part.users:
            if user.target is not aten.slice.Tensor or argument(user, 1, "dim", 0) != axis:
                return side
            given = (argument(user, 2, "start", None), argument(user, 3, "end", None))
            last = max(last, slice(*given).indices(side)[1])
        if not part.users or part.target is not operator.getitem:
            return side
    return last or side


def _largest(w: Writer, node: fx.Node) -> tuple[str, ...]:
    given, count = args_of(node)[:2]
    axis = argument(node, 2, "dim", -1) % len(shape_of(given))
    return _first(w, given, count, axis, bool(argument(node, 3, "largest", True)))


RULES: dict[Any, Rule] = {
    **dict.fromkeys((aten.mean.dim, aten.mean.default), _reduced("ReduceMean")),
    **dict.fromkeys((aten.sum.dim_IntList, aten.sum.default), _reduced("ReduceSum")),
    **dict.fromkeys((aten.amax.default, aten.max.default), _reduced("ReduceMax")),
    **dict.fromkeys((aten.amin.default, aten.min.default), _reduced("ReduceMin")),
    **dict.fromkeys((aten.any.default, aten.any.dim), _truths("ReduceMax")),
    **dict.fromkeys((aten.all.default, aten.all.dim), _truths("ReduceMin")),
    **dict.fromkeys((aten.sort.default, aten.sort.stable), _sorted),
    aten.argmax.default: _first_of_extremes("ArgMax"),
    aten.argmin.default: _first_of_extremes("ArgMin"),
    aten.linalg_vector_norm.default: _length,
    aten.var.correction: _spread,
    aten.cumsum.default: _running_sum,
    aten.topk.default: _largest,
}
"""Many values into few, or into order."""


def _order(node: fx.Node) -> str | None:
    known = float(argument(node, 1, "ord", 2)) in (1, 2)
    return None if known else f"a norm of order {args_of(node)[1]} has no ONNX form here"


def _of_truths(node: fx.Node) -> str | None:
    given: Any = args_of(node)[0]
    return (
        f"{node.target} of truths has no ONNX form here" if dtype_of(given) == torch.bool else None
    )


REASONS = {
    aten.linalg_vector_norm.default: _order,
    **dict.fromkeys(
        (
            aten.sort.default, aten.sort.stable, aten.topk.default, aten.argmax.default,
            aten.argmin.default, aten.amax.default, aten.amin.default, aten.max.default,
            aten.min.default,
        ),
        _of_truths,
    ),
}  # fmt: skip
"""Why a call of them cannot be written."""
