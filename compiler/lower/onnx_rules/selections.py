"""selections: rows taken and put by their numbers, and one of two values by a condition."""

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
    dtype_of,
    ints,
    number,
    operand,
    reshaped,
    shape_of,
    side_of,
)


def _where(w: Writer, node: fx.Node) -> str:
    condition, first, second = args_of(node)[:3]
    dtype = dtype_of(node)
    mask = operand(w, condition, torch.bool)
    return _chosen(w, mask, operand(w, first, dtype), operand(w, second, dtype), dtype)


def _filled(w: Writer, node: fx.Node) -> str:
    given, mask, value = args_of(node)[:3]
    dtype = dtype_of(node)
    return _chosen(w, w.name(mask), operand(w, value, dtype), operand(w, given, dtype), dtype)


def _chosen(w: Writer, condition: str, first: str, second: str, dtype: torch.dtype) -> str:
    """The first where the condition holds, else the second; ONNX Runtime has none for truths."""
    if dtype != torch.bool:
        return w.add("Where", [condition, first, second])
    other = w.add("And", [w.add("Not", [condition]), second])
    return w.add("Or", [w.add("And", [condition, first]), other])


def _rows(w: Writer, node: fx.Node) -> str:
    given, axis, index = args_of(node)[:3]
    return w.add("Gather", [w.name(given), w.name(index)], axis=axis % len(shape_of(given)))


def _embedded(w: Writer, node: fx.Node) -> str:
    table, index = args_of(node)[:2]
    return w.add("Gather", [w.name(table), w.name(index)], axis=0)


def _picked(w: Writer, node: fx.Node) -> str:
    given, axis, index = args_of(node)[:3]
    inputs = [w.name(given), w.name(index)]
    return w.add("GatherElements", inputs, axis=axis % len(shape_of(given)))


def _put_rows(w: Writer, node: fx.Node) -> str:
    """Along the first axis whole rows by their numbers; else each element by its own."""
    given, axis, index, rows = args_of(node)[:4]
    shape, count = shape_of(given), shape_of(index)
    many = count[0] if count else 1
    if axis % len(shape) == 0:
        places = reshaped(w, w.name(index), [many, 1])
        return w.add("ScatterND", [w.name(given), places, w.name(rows)])
    sides = [1] * len(shape)
    sides[axis] = many
    places = w.add("Expand", [reshaped(w, w.name(index), sides), ints(w, shape_of(rows))])
    inputs = [w.name(given), places, w.name(rows)]
    return w.add("ScatterElements", inputs, axis=axis % len(shape))


def _put(w: Writer, node: fx.Node) -> str:
    given, axis, index, values = args_of(node)[:4]
    dtype = dtype_of(node)
    put = (
        operand(w, values, dtype)
        if isinstance(values, fx.Node)
        else w.add("Expand", [number(w, values, dtype), ints(w, shape_of(index))])
    )
    inputs = [w.name(given), w.name(index), put]
    return w.add("ScatterElements", inputs, axis=axis % len(shape_of(given)))


def _indexed(w: Writer, node: fx.Node) -> str:
    """`x[i]`, `x[:, i]`: numbers along one axis, of any shape."""
    given: Any = args_of(node)[0]
    places: Any = args_of(node)[1]
    axis = next(at for at, place in enumerate(places) if place is not None)
    return w.add("Gather", [w.name(given), w.name(places[axis])], axis=axis)


def _put_one(w: Writer, node: fx.Node) -> str:
    """One place along an axis put anew: what is before it, it, and what is after it."""
    given, put, axis, index = args_of(node)[:4]
    axis, side = axis % len(shape_of(given)), side_of(given, axis)
    at = index % side
    middle = w.add("Unsqueeze", [operand(w, put, dtype_of(node)), ints(w, [axis])])
    return _between(w, w.name(given), middle, axis, (at, at + 1, side))


def _put_slice(w: Writer, node: fx.Node) -> str:
    """A range along an axis put anew; of every so many places by a choice between old and new."""
    given, put = args_of(node)[:2]
    shape = shape_of(given)
    axis = argument(node, 2, "dim", 0) % len(shape)
    ends = argument(node, 3, "start", None), argument(node, 4, "end", None)
    step: int = argument(node, 5, "step", 1)
    side = side_of(given, axis)
    first, last, _ = slice(*ends).indices(side)
    new = operand(w, put, dtype_of(node))
    if step == 1:
        return _between(w, w.name(given), new, axis, (first, last, side))
    places = torch.arange(side)
    chosen = (places >= first) & (places < last) & ((places - first) % step == 0)
    source = ((places - first) // step).clamp(0, side_of(put, axis) - 1)
    spread = w.add("Gather", [new, w.constant(source)], axis=axis)
    mask = w.constant(chosen.reshape([-1, *[1] * (len(shape) - axis - 1)]))
    return _chosen(w, mask, spread, w.name(given), dtype_of(node))


def _between(w: Writer, old: str, new: str, axis: int, ends: tuple[int, int, int]) -> str:
    """A value with `new` from the first to the last of the places `ends`; the third is its side."""
    first, last, side = ends
    parts = [new]
    if first:
        parts.insert(0, w.add("Slice", [old, *(ints(w, [at]) for at in (0, first, axis))]))
    if last < side:
        parts.append(w.add("Slice", [old, *(ints(w, [at]) for at in (last, side, axis))]))
    return w.add("Concat", parts, axis=axis)


RULES: dict[Any, Rule] = {
    **dict.fromkeys(
        (aten.where.self, aten.where.ScalarSelf, aten.where.ScalarOther, aten.where.Scalar), _where
    ),
    **dict.fromkeys((aten.masked_fill.Scalar, aten.masked_fill.Tensor), _filled),
    **dict.fromkeys((aten.scatter.src, aten.scatter.value), _put),
    aten.index_select.default: _rows,
    aten.embedding.default: _embedded,
    aten.gather.default: _picked,
    aten.index_copy.default: _put_rows,
    aten.index.Tensor: _indexed,
    aten.select_scatter.default: _put_one,
    aten.slice_scatter.default: _put_slice,
}
"""Values chosen by others."""


def _several(node: fx.Node) -> str | None:
    places: Any = args_of(node)[1]
    named = [place for place in places if place is not None]
    if len(named) != 1:
        return "indexing by several tensors has no ONNX form here"
    if dtype_of(named[0]) in (torch.bool, torch.uint8):
        return "indexing by a condition has a result of no fixed shape"
    return None


REASONS = {aten.index.Tensor: _several}
"""Why a call of them cannot be written."""
