"""One spelling per operator: what each node of a traced graph becomes in the canonical graph.

A rule never changes a number, nor the strides of its result: it only picks one of several ways to
write the same call. Views and copies of rearranged memory both become `reshape`, which decides by
the strides it meets; so a graph captured from one memory layout runs on another.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from turbo4d.compiler.compat import arguments_of, is_operator
from turbo4d.compiler.errors import CaptureError

aten = torch.ops.aten


@dataclass(frozen=True)
class Call:
    """A node to be written: operator, positional and keyword arguments."""

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


# A switch that the normalisation operators carry and do not read.
_WITHOUT_EFFECT = ("cudnn_enable", "cudnn_enabled")

Spelled = Call | fx.Node | None
"""What a rule answers: a call to write, a node to use instead, or None to keep the node."""

Args = Sequence[Any]
Rule = Callable[[fx.Node, Args, dict[str, Any]], Spelled]


def value_of(node: Any) -> Tensor:
    """The shape-carrying value of a node that yields one tensor."""
    value = node.meta["val"]
    if not isinstance(value, Tensor):
        raise TypeError(f"%{node.name} yields {type(value).__name__}, wanted one tensor")
    return value


def shape_of(node: Any) -> tuple[int, ...]:
    """The shape of a node's value."""
    return tuple(int(side) for side in value_of(node).shape)


def trimmed(call: Call) -> Call:
    """The same call with arguments in schema order, defaults left out, axes counted from 0."""
    if not is_operator(call.target):
        return call
    given = dict(call.kwargs)
    schema = arguments_of(call.target)
    for (name, *_), value in zip(schema, call.args, strict=False):
        given[name] = value
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    last = -1
    for index, (name, keyword, has_default, default) in enumerate(schema):
        value = given.get(name, default)
        is_default = (has_default and _same(value, default)) or name in _WITHOUT_EFFECT
        if keyword:
            if not is_default:
                kwargs[name] = value
            continue
        args.append(value)
        if not is_default or not has_default:
            last = index
    return Call(call.target, tuple(args[: last + 1]), kwargs)


def _same(value: Any, default: Any) -> bool:
    if isinstance(value, fx.Node):
        return False
    # A list reaches here as fx's own kind of list, its default as a plain one.
    alike = type(value) is type(default) or isinstance(value, list)
    return alike and bool(value == default)


def _use_input(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    return args[0]


def _reshape(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    shape = shape_of(node)
    if shape_of(args[0]) == shape:
        return args[0]
    return Call(aten.reshape.default, (args[0], list(shape)), {})


def _dropout(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    if args[2] and args[1] > 0:
        raise CaptureError(
            f"the forward draws random numbers: dropout of {args[1]} in training mode; "
            "call model.eval() before compiling."
        )
    return args[0]


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


def _cast(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    before, after = value_of(args[0]), value_of(node)
    wanted: dict[str, Any] = {}
    if before.dtype != after.dtype:
        wanted["dtype"] = after.dtype
    if before.device != after.device:
        wanted["device"] = after.device
    if before.stride() != after.stride():
        layout = kwargs.get("memory_format")
        wanted["memory_format"] = torch.contiguous_format if layout is None else layout
    if not wanted:
        return args[0]
    return Call(aten._to_copy.default, (args[0],), wanted)


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
    if not isinstance(many, fx.Node) or many.target not in _MANY:
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


def _softmax(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    dtype: Any = args[2] if len(args) > 2 else kwargs.get("dtype")
    axis = args[1] % len(shape_of(node))
    if dtype is None or dtype == value_of(args[0]).dtype:
        return Call(aten.softmax.int, (args[0], axis), {})
    return Call(aten.softmax.int, (args[0], axis, dtype), {})


def _filled(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    """Takes of another value no more than its shape: here it stands free of it."""
    value, name = value_of(node), node.target.__name__  # type: ignore[union-attr]
    if not value.is_contiguous():
        return None
    made: dict[str, Any] = {"dtype": value.dtype, "device": value.device}
    if "full" in name:
        fill = args[2] if "new" in name else args[1]
        return Call(aten.full.default, (list(shape_of(node)), fill), made)
    target = aten.zeros.default if "zeros" in name else aten.ones.default
    return Call(target, (list(shape_of(node)),), made)


def _einsum(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    """Of one operand, with each letter once on either side: a permutation."""
    sources, arrow, result = args[0].replace(" ", "").partition("->")
    plain = bool(arrow) and sorted(sources) == sorted(result) and len(set(sources)) == len(sources)
    if not plain or "." in sources:
        return None
    return _permuted(args[1][0], [sources.index(letter) for letter in result])


_CONTIGUOUS = (aten.clone.default, aten.contiguous.default)
_FILLED = (
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
)
_MANY = (
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.split.sizes,
    aten.chunk.default,
    aten.unbind.int,
)
RULES: dict[Any, Rule] = {
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
    **dict.fromkeys(_CONTIGUOUS, _contiguous),
    **dict.fromkeys(
        (
            aten._to_copy.default,
            aten.to.dtype,
            aten.to.device,
            aten.to.other,
            aten.to.dtype_layout,
            aten.type_as.default,
        ),
        _cast,
    ),
    **dict.fromkeys(_FILLED, _filled),
    aten.dropout.default: _dropout,
    aten.feature_dropout.default: _dropout,
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
    aten.softmax.int: _softmax,
    operator.getitem: _part,
}
SPELLED = frozenset(RULES) | frozenset(_MANY)
"""Operators that canonicalise rewrites, whether or not a trace would have opened them up."""
