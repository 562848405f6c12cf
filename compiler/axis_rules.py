"""How each operator carries the factors of its operands to its result."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import fx
from turbo4d.compiler.factors import Axes, Axis, Root, length, regrouped, whole

aten = torch.ops.aten
Known = Callable[[Any], Axes]
Rule = Callable[[fx.Node, Known], Axes]
_GRIDS = (aten.meshgrid.default, aten.meshgrid.indexing)
# The letter of a count from zero.
POSITION = "p"


def shape_of(node: Any) -> tuple[int, ...]:
    """The shape of a node's value."""
    return tuple(int(side) for side in node.meta["val"].shape)


def fresh(letter: str, size: int, why: str = "") -> Axis:
    """A new axis."""
    return whole(Root(letter, size, why=why))


def resized(axis: Axis, size: int) -> Axis:
    """An axis of another length that means the same: sliced, padded, strided or interpolated."""
    if length(axis) == size:
        return axis
    return whole(Root("", size, union=(axis,)))


def unknown(node: fx.Node) -> Axes:
    """Axes of which nothing is known but who made them."""
    return tuple(fresh("?", side, str(node.target)) for side in shape_of(node))


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


def _reshape(node: fx.Node, known: Known) -> Axes:
    return regrouped(known(node.args[0]), shape_of(node))


def _permute(node: fx.Node, known: Known) -> Axes:
    axes, order = known(node.args[0]), _ints(node.args[1])
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
    over = {index % len(axes) for index in _ints(node.args[1] if len(node.args) > 1 else None)}
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


def _ints(value: Any) -> Sequence[int]:
    if value is None:
        return ()
    return (
        list(map(int, cast(Sequence[int], value)))
        if isinstance(value, (list, tuple))
        else [int(value)]
    )


def _operators(*names: str) -> list[Any]:
    """The overloads called `name.overload`, those that this torch has."""
    found: list[Any] = []
    for name in names:
        packet, _, overload = name.partition(".")
        operator = getattr(getattr(aten, packet, None), overload or "default", None)
        if operator is not None:
            found.append(operator)
    return found


_RULES: dict[Any, Rule] = {
    **dict.fromkeys(
        _operators(
            "layer_norm", "group_norm", "rms_norm", "instance_norm", "softmax.int", "_softmax",
            "clone", "_to_copy", "roll", "flip", "cumsum", "contiguous",
        ),
        _same,
    ),
    **dict.fromkeys(
        _operators("conv1d", "conv2d", "conv3d", "conv1d.padding", "conv2d.padding",
                   "conv3d.padding", "convolution", "conv_transpose1d", "conv_transpose2d.input",
                   "conv_transpose3d.input"),
        _convolution,
    ),
    **dict.fromkeys(
        _operators(
            "upsample_nearest1d.vec", "upsample_nearest2d.vec", "upsample_nearest3d.vec",
            "upsample_bilinear2d.vec", "upsample_bicubic2d.vec", "upsample_trilinear3d.vec",
            "upsample_nearest2d", "upsample_bilinear2d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
            "max_pool2d", "adaptive_avg_pool2d", "index_select", "pad", "constant_pad_nd",
            "reflection_pad2d",
            "replication_pad2d",
        ),
        _interpolate,
    ),
    **dict.fromkeys(_operators("matmul", "bmm", "mm"), _matmul),
    **dict.fromkeys(_operators("addmm", "baddbmm"), _added_matmul),
    **dict.fromkeys(_operators("mean.dim", "sum.dim_IntList", "amax", "amin", "var.correction",
                               "linalg_vector_norm"), _reduce),
    **dict.fromkeys(_operators("squeeze.dim", "squeeze", "squeeze.dims"), _squeeze),
    **dict.fromkeys(_operators("pixel_shuffle", "pixel_unshuffle"), _shuffle),
    **dict.fromkeys(_operators("arange", "arange.start", "arange.start_step"), _count),
    **dict.fromkeys(_operators("stack"), _stack),
    operator.getitem: _getitem,
    **dict.fromkeys(_operators("view_as_complex"), _paired),
    **dict.fromkeys(_operators("view_as_real"), _unpaired),
    aten.reshape.default: _reshape,
    aten.permute.default: _permute,
    aten.unsqueeze.default: _unsqueeze,
    aten.expand.default: _expand,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.cat.default: _cat,
    aten.linear.default: _linear,
    aten.scaled_dot_product_attention.default: _attention,
    aten.einsum.default: _einsum,
}  # fmt: skip
