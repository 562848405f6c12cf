"""shapes: what moves, repeats, joins or leaves out values and computes none."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    dtype_of,
    ints,
    number,
    operand,
    reshaped,
    shape_of,
    side_of,
    source,
)


def _same(w: Writer, node: fx.Node) -> str:
    return w.add("Identity", [source(w, node)])


def _cast(w: Writer, node: fx.Node) -> str:
    return w.add("Cast", [source(w, node)], to=dtype_of(node))


def _reshape(w: Writer, node: fx.Node) -> str:
    return reshaped(w, source(w, node), shape_of(node))


def _permute(w: Writer, node: fx.Node) -> str:
    given, axes = args_of(node)[:2]
    rank = len(shape_of(node))
    return w.add("Transpose", [w.name(given)], perm=[axis % rank for axis in axes])


def _expand(w: Writer, node: fx.Node) -> str:
    return w.add("Expand", [source(w, node), ints(w, shape_of(node))])


def _copied(w: Writer, node: fx.Node) -> str:
    """The second value in the shape and dtype of the first."""
    value = operand(w, args_of(node)[1], dtype_of(node))
    return w.add("Expand", [value, ints(w, shape_of(node))])


def _unset(w: Writer, node: fx.Node) -> str:
    """What torch leaves undefined is zero."""
    return w.add("Expand", [number(w, 0, dtype_of(node)), ints(w, shape_of(node))])


def _slice(w: Writer, node: fx.Node) -> str:
    given: Any = args_of(node)[0]
    axis: int = argument(node, 1, "dim", 0)
    start, end = argument(node, 2, "start", None), argument(node, 3, "end", None)
    step: int = argument(node, 4, "step", 1)
    side = side_of(given, axis)
    first, last, _ = slice(start, end, step).indices(side)
    parts = (ints(w, [value]) for value in (first, last, axis, step))
    return w.add("Slice", [w.name(given), *parts])


def _select(w: Writer, node: fx.Node) -> str:
    given: Any
    given, axis, index = args_of(node)[:3]
    where = number(w, index % side_of(given, axis), torch.int64)
    return w.add("Gather", [w.name(given), where], axis=axis)


def _cat(w: Writer, node: fx.Node) -> str:
    """Parts of one dimension of length 0 count for nothing, whatever the others are."""
    dtype = dtype_of(node)
    parts = [part for part in args_of(node)[0] if shape_of(part) != (0,)]
    axis = argument(node, 1, "dim", 0)
    return w.add("Concat", [operand(w, part, dtype) for part in parts], axis=axis)


def _stack(w: Writer, node: fx.Node) -> str:
    rank = len(shape_of(node))
    axis = argument(node, 1, "dim", 0) % rank
    dtype = dtype_of(node)
    parts = [operand(w, part, dtype) for part in args_of(node)[0]]
    apart = [w.add("Unsqueeze", [part, ints(w, [axis])]) for part in parts]
    return w.add("Concat", apart, axis=axis)


def _in_a_row(w: Writer, node: fx.Node) -> str:
    """Each slice along an axis several times in a row."""
    given, times = args_of(node)[:2]
    axis: int | None = argument(node, 2, "dim", None)
    name, shape = w.name(given), shape_of(given)
    if axis is None:
        shape, axis = (math.prod(shape),), 0
    at = axis % len(shape)
    apart = reshaped(w, name, [*shape[: at + 1], 1, *shape[at + 1 :]])
    spread = w.add("Expand", [apart, ints(w, [*shape[: at + 1], times, *shape[at + 1 :]])])
    return reshaped(w, spread, shape_of(node))


def _tiled(w: Writer, node: fx.Node) -> str:
    given: Any = args_of(node)[0]
    times: Any = args_of(node)[1]
    rank = max(len(times), len(shape_of(given)))
    name = w.name(given)
    if rank != len(shape_of(given)):
        name = reshaped(w, name, [*[1] * (rank - len(shape_of(given))), *shape_of(given)])
    return w.add("Tile", [name, ints(w, [*[1] * (rank - len(times)), *times])])


def _flip(w: Writer, node: fx.Node) -> str:
    given: Any = args_of(node)[0]
    axes = axes_of(args_of(node)[1], len(shape_of(given)))
    many = len(axes)
    lowest = torch.iinfo(torch.int64).min
    parts = (ints(w, values) for values in ([-1] * many, [lowest] * many, axes, [-1] * many))
    return w.add("Slice", [w.name(given), *parts])


def _roll(w: Writer, node: fx.Node) -> str:
    """What leaves at one end comes back at the other."""
    given: Any = args_of(node)[0]
    shape, name = shape_of(given), w.name(given)
    shifts: Any = args_of(node)[1]
    axes: Any = argument(node, 2, "dims", [])
    if not axes:
        name, shape, axes = reshaped(w, name, [math.prod(shape)]), (math.prod(shape),), [0]
    for shift, axis in zip(_listed(shifts), _listed(axes), strict=True):
        side = shape[axis]
        at = -shift % side
        ends = ((at, side), (0, at))
        parts = [w.add("Slice", [name, *(ints(w, [value]) for value in (*end, axis))])
                 for end in ends if end[0] != end[1]]  # fmt: skip
        name = w.add("Concat", parts, axis=axis)
    return reshaped(w, name, shape_of(node))


def _listed(given: Any) -> list[int]:
    return [given] if isinstance(given, int) else [*given]


def _padded(w: Writer, node: fx.Node) -> str:
    """Torch counts from the last axis, a pair for each; ONNX all beginnings, then all ends."""
    given: Any = args_of(node)[0]
    mode: Any = argument(node, 2, "mode", "constant") if node.target is aten.pad.default else ""
    value: Any = argument(node, 3 if mode else 2, "value", 0)
    how = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}.get(mode, "constant")
    pads = _pads(args_of(node)[1], len(shape_of(given)))
    inputs = [w.name(given), ints(w, pads)]
    if how == "constant":
        inputs.append(number(w, value, dtype_of(node)))
    return w.add("Pad", inputs, mode=how)


def _pads(given: Sequence[int], rank: int) -> list[int]:
    pairs = [(given[at], given[at + 1]) for at in range(0, len(given), 2)]
    pairs = [*reversed(pairs)]
    pairs = [*[(0, 0)] * (rank - len(pairs)), *pairs]
    return [*(first for first, _ in pairs), *(last for _, last in pairs)]


def _triangle(upper: int) -> Rule:
    return lambda w, node: w.add(
        "Trilu", [source(w, node), number(w, argument(node, 1, "diagonal", 0), torch.int64)],
        upper=upper,
    )  # fmt: skip


def _shuffled(kind: str) -> Rule:
    """Channels into pixels, or pixels into channels, by reshapes: both orders are torch's own."""

    def rule(w: Writer, node: fx.Node) -> str:
        given: Any = args_of(node)[0]
        factor: Any = args_of(node)[1]
        *outer, channels, height, width = shape_of(given)
        lead, at = len(outer), [*range(len(outer))]
        if kind == "pixels":
            sides = [*outer, channels // factor**2, factor, factor, height, width]
            order = [*at, *(lead + step for step in (0, 3, 1, 4, 2))]
        else:
            sides = [*outer, channels, height // factor, factor, width // factor, factor]
            order = [*at, *(lead + step for step in (0, 2, 4, 1, 3))]
        turned = w.add("Transpose", [reshaped(w, w.name(given), sides)], perm=order)
        return reshaped(w, turned, shape_of(node))

    return rule


def _grids(w: Writer, node: fx.Node) -> tuple[str, ...]:
    """One table for each row of numbers, along an axis of its own."""
    rows: Any = args_of(node)[0]
    crossed = node.kwargs.get("indexing", "ij") == "xy" and len(rows) > 1
    found: list[str] = []
    for at, row in enumerate(rows):
        sides = [1] * len(rows)
        sides[1 - at if crossed and at < 2 else at] = -1
        table = ints(w, [int(side) for side in node.meta["val"][at].shape])
        found.append(w.add("Expand", [reshaped(w, w.name(row), sides), table]))
    return tuple(found)


RULES: dict[Any, Rule] = {
    **dict.fromkeys((aten.meshgrid.default, aten.meshgrid.indexing), _grids),
    **dict.fromkeys(
        (
            aten.reshape.default,
            aten.unsqueeze.default,
            aten.squeeze.dim,
            aten.squeeze.default,
            aten.squeeze.dims,
        ),
        _reshape,
    ),
    **dict.fromkeys((aten.repeat.default, aten.tile.default), _tiled),
    **dict.fromkeys((aten.pad.default, aten.constant_pad_nd.default), _padded),
    **dict.fromkeys((aten.copy.default, aten.fill.Tensor, aten.fill.Scalar), _copied),
    aten.empty_like.default: _unset,
    aten.clone.default: _same,
    aten._to_copy.default: _cast,
    aten.permute.default: _permute,
    aten.expand.default: _expand,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.cat.default: _cat,
    aten.stack.default: _stack,
    aten.repeat_interleave.self_int: _in_a_row,
    aten.flip.default: _flip,
    aten.roll.default: _roll,
    aten.tril.default: _triangle(0),
    aten.triu.default: _triangle(1),
    aten.pixel_shuffle.default: _shuffled("pixels"),
    aten.pixel_unshuffle.default: _shuffled("channels"),
}
"""Values in another place or shape."""

REASONS: dict[Any, Any] = {}
"""All their calls can be written."""
