"""How operators that move numbers and compute none carry the factors of their operands."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import fx
from turbo4d.compiler.factors import Axes, Axis, Root, fresh, length, regrouped, resized, whole
from turbo4d.compiler.node_values import shape_of

aten = torch.ops.aten
Known = Callable[[Any], Axes]
"""Gives the axes of any operand."""
Rule = Callable[[fx.Node, Known], Axes]
_GRIDS = (aten.meshgrid.default, aten.meshgrid.indexing)


def unknown(node: fx.Node) -> Axes:
    """Axes of which nothing is known but who made them."""
    return tuple(fresh("?", side, str(node.target)) for side in shape_of(node))


def _reshape(node: fx.Node, known: Known) -> Axes:
    return regrouped(known(node.args[0]), shape_of(node))


def _permute(node: fx.Node, known: Known) -> Axes:
    axes, order = known(node.args[0]), ints(node.args[1])
    return tuple(axes[index] for index in order)


def _unsqueeze(node: fx.Node, known: Known) -> Axes:
    axes, index = list(known(node.args[0])), _int(node.args[1])
    axes.insert(index, ())
    return tuple(axes)


def _squeeze(node: fx.Node, known: Known) -> Axes:
    source = node.args[0]
    kept = [axis for axis in known(source) if axis]
    shape = shape_of(node)
    left = iter(kept)
    return tuple(next(left) if side > 1 else () for side in shape)


def _expand(node: fx.Node, known: Known) -> Axes:
    shape = shape_of(node)
    axes = known(node.args[0])
    axes = ((),) * (len(shape) - len(axes)) + axes
    return tuple(
        axis if length(axis) == side else fresh("?", side, "expand")
        for axis, side in zip(axes, shape, strict=True)
    )


def _slice(node: fx.Node, known: Known) -> Axes:
    axes = list(known(node.args[0]))
    index = _int(node.args[1])
    axis, side = axes[index], shape_of(node)[index]
    axes[index] = _segment(axis, _int(node.args[2]), side) or resized(axis, side)
    return tuple(axes)


def _segment(axis: Axis, start: int, side: int) -> Axis | None:
    """What a concatenation put exactly where a slice takes it out."""
    if len(axis) != 1 or axis[0].inner != 1 or not axis[0].root.union:
        return None
    at = 0
    for part in axis[0].root.union:
        if at == start and length(part) == side:
            return part
        at += length(part)
    return None


def _select(node: fx.Node, known: Known) -> Axes:
    axes = list(known(node.args[0]))
    del axes[_int(node.args[1])]
    return tuple(axes)


def _cat(node: fx.Node, known: Known) -> Axes:
    parts: Any = node.args[0]
    index = _int(node.args[1]) if len(node.args) > 1 else 0
    each = [known(part) for part in parts if length_of(part)]
    axes = list(each[0])
    for other in each[1:]:
        axes = [mine if _sure(mine) else theirs for mine, theirs in zip(axes, other, strict=True)]
    joint = tuple(axes[index] for axes in each)
    axes[index] = whole(Root("", shape_of(node)[index], union=joint))
    return tuple(axes)


def length_of(node: fx.Node) -> int:
    """How many numbers a value holds."""
    return int(node.meta["val"].numel())


def _sure(axis: Axis) -> bool:
    return all(atom.root.letter != "?" for atom in axis)


def _paired(node: fx.Node, known: Known) -> Axes:
    return known(node.args[0])[:-1]


def _unpaired(node: fx.Node, known: Known) -> Axes:
    return (*known(node.args[0]), fresh("C", 2, str(node.target)))


def _stack(node: fx.Node, known: Known) -> Axes:
    parts: Any = node.args[0]
    rank = len(shape_of(node))
    index = (_int(node.args[1]) if len(node.args) > 1 else 0) % rank
    axes = [max(alike, key=_sure) for alike in zip(*(known(part) for part in parts), strict=True)]
    # As a concatenation of axes of length 1, it runs over nothing.
    axes.insert(index, whole(Root("", len(parts), union=((),) * len(parts))))
    return tuple(axes)


def _getitem(node: fx.Node, known: Known) -> Axes:
    """One table of a meshgrid; its own count lies along its own axis."""
    many: Any = node.args[0]
    if many.target not in _GRIDS:
        return unknown(node)
    axes = [known(source)[0] if known(source) else () for source in many.args[0]]
    swapped = many.kwargs.get("indexing") == "xy"
    return tuple(axes[1::-1] + axes[2:] if swapped else axes)


def _shuffle(node: fx.Node, known: Known) -> Axes:
    axes, shape = known(node.args[0]), shape_of(node)
    space = (resized(axis, side) for axis, side in zip(axes[-2:], shape[-2:], strict=True))
    return (*axes[:-3], fresh("C", shape[-3]), *space)


def _int(value: Any) -> int:
    return int(value)


def ints(value: Any) -> Sequence[int]:
    """Whole numbers among a call's arguments; none where nothing is given."""
    if value is None:
        return ()
    return (
        list(map(int, cast(Sequence[int], value)))
        if isinstance(value, (list, tuple))
        else [int(value)]
    )


def operators(*names: str) -> list[Any]:
    """The overloads called `name.overload`, those that this torch has."""
    found: list[Any] = []
    for name in names:
        packet, _, overload = name.partition(".")
        operator = getattr(getattr(aten, packet, None), overload or "default", None)
        if operator is not None:
            found.append(operator)
    return found


VIEWS: Mapping[Any, Rule] = {
    **dict.fromkeys(operators("squeeze.dim", "squeeze", "squeeze.dims"), _squeeze),
    **dict.fromkeys(operators("pixel_shuffle", "pixel_unshuffle"), _shuffle),
    **dict.fromkeys(operators("stack"), _stack),
    **dict.fromkeys(operators("view_as_complex"), _paired),
    **dict.fromkeys(operators("view_as_real"), _unpaired),
    operator.getitem: _getitem,
    aten.reshape.default: _reshape,
    aten.permute.default: _permute,
    aten.unsqueeze.default: _unsqueeze,
    aten.expand.default: _expand,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.cat.default: _cat,
}
