"""One spelling for what moves numbers and computes none: views, copies, and parts of a value.

A rule never changes a number, nor the strides of its result. Views and copies of rearranged memory
both become `reshape`, which decides by the strides it meets; so a graph captured from one memory
layout runs on another.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from turbo4d.compiler.node_values import shape_of, value_of
from turbo4d.compiler.spelled_call import Args, Call, Rule, Spelled

aten = torch.ops.aten
MANY = (
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.split.sizes,
    aten.chunk.default,
    aten.unbind.int,
)
"""What gives several parts of a value; each is spelled where it is taken."""


def _use_input(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    return args[0]


def _reshape(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    shape = shape_of(node)
    if shape_of(args[0]) == shape:
        return args[0]
    return Call(aten.reshape.default, (args[0], list(shape)), {})


def fold_copies(graph: fx.Graph) -> None:
    """Let a reshape do the copy that it would do by itself: `reshape(clone(x))` -> `reshape(x)`.

    Only where the copy has no other user and `x` cannot be viewed in the new shape, so that the
    result has the same memory layout either way.
    """
    for node in graph.find_nodes(op="call_function", target=aten.reshape.default):
        copy: Any = node.args[0]
        if copy.target is not aten.clone.default or len(copy.users) > 1:
            continue
        if copy.kwargs.get("memory_format") is not torch.contiguous_format:
            continue
        if not viewable(value_of(copy.args[0]), shape_of(node)):
            node.update_arg(0, copy.args[0])
            graph.erase_node(copy)


def viewable(value: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether a value can take a shape without a copy."""
    try:
        value.view(shape)
    except (RuntimeError, ValueError):
        return False
    return True


def _contiguous(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    layout = kwargs.get("memory_format", args[1] if len(args) > 1 else None)
    if layout is None and node.target is aten.contiguous.default:
        layout = torch.contiguous_format
    if layout in (None, torch.preserve_format):
        return args[0]
    if value_of(args[0]).is_contiguous(memory_format=layout):
        return args[0]
    return Call(aten.clone.default, (args[0],), {"memory_format": layout})


def _expand(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    shape = shape_of(node)
    if shape_of(args[0]) == shape:
        return args[0]
    return Call(aten.expand.default, (args[0], list(shape)), {})


def _transpose(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    rank = len(shape_of(node))
    order = list(range(rank))
    if rank:
        first, second = (
            (0, 1) if node.target is aten.t.default else (args[1] % rank, args[2] % rank)
        )
        if rank > 1:
            order[first], order[second] = order[second], order[first]
    return _permuted(args[0], order)


def _permute(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    rank = len(shape_of(node))
    return _permuted(args[0], [axis % rank for axis in args[1]])


def _permuted(source: fx.Node, order: list[int]) -> Spelled:
    if order == list(range(len(order))):
        return source
    return Call(aten.permute.default, (source, order), {})


def _slice(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    given: list[Any] = [*args, *(0, None, None, 1)[len(args) - 1 :]]
    source, axis, start, end, step = given
    return _sliced(source, axis % len(shape_of(source)), start, end, step)


def _sliced(source: fx.Node, axis: int, start: Any, end: Any, step: int = 1) -> Spelled:
    side = shape_of(source)[axis]
    start, end, _ = slice(start, end).indices(side)
    if (start, end, step) == (0, side, 1):
        return source
    return Call(aten.slice.Tensor, (source, axis, start, end, step), {})


def _select(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    shape = shape_of(args[0])
    axis: int = args[1] % len(shape)
    return Call(aten.select.int, (args[0], axis, args[2] % shape[axis]), {})


def _unsqueeze(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    return Call(aten.unsqueeze.default, (args[0], args[1] % len(shape_of(node))), {})


def _cat(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    axis = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    return Call(aten.cat.default, (list(args[0]), axis % len(shape_of(node))), {})


def _part(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    """`getitem` of a split: a slice; of an unbind: a select."""
    many, index = args
    if not isinstance(many, fx.Node) or many.target not in MANY:
        return None
    source: Any = many.args[0]
    rank = len(shape_of(source))
    parts = many.meta["val"]
    if many.target is aten.unbind.int:
        axis: Any = many.args[1] if len(many.args) > 1 else many.kwargs.get("dim", 0)
        return Call(aten.select.int, (source, axis % rank, index % len(parts)), {})
    axis = many.args[2] if len(many.args) > 2 else many.kwargs.get("dim", 0)
    axis, index = axis % rank, index % len(parts)
    sides = [int(part.shape[axis]) for part in parts]
    start = sum(sides[:index])
    return _sliced(source, axis, start, start + sides[index])


def _einsum(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    """Of one operand, with each letter once on either side: a permutation."""
    sources, arrow, result = args[0].replace(" ", "").partition("->")
    plain = bool(arrow) and sorted(sources) == sorted(result) and len(set(sources)) == len(sources)
    if not plain or "." in sources:
        return None
    return _permuted(args[1][0], [sources.index(letter) for letter in result])


VIEWS: Mapping[Any, Rule] = {
    **dict.fromkeys(
        (
            aten.alias.default,
            aten.detach.default,
            aten.detach_.default,
            aten.lift_fresh.default,
            aten.lift_fresh_copy.default,
            aten.positive.default,
        ),
        _use_input,
    ),
    **dict.fromkeys(
        (
            aten.view.default,
            aten._unsafe_view.default,
            aten.reshape.default,
            aten.flatten.using_ints,
            aten.unflatten.int,
            aten.view_as.default,
            aten.reshape_as.default,
            aten._reshape_alias.default,
        ),
        _reshape,
    ),
    aten.clone.default: _contiguous,
    aten.contiguous.default: _contiguous,
    aten.expand.default: _expand,
    aten.expand_as.default: _expand,
    aten.transpose.int: _transpose,
    aten.t.default: _transpose,
    aten.swapaxes.default: _transpose,
    aten.swapdims.default: _transpose,
    aten.permute.default: _permute,
    aten.einsum.default: _einsum,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.unsqueeze.default: _unsqueeze,
    aten.cat.default: _cat,
    operator.getitem: _part,
}
