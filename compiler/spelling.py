"""One spelling per operator: what each node of a traced graph becomes in the canonical graph.

A rule never changes a number, nor the strides of its result: it only picks one of several ways to
write the same call. Those of views and copies stand in `view_spelling`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from turbo4d.compiler.errors import CaptureError
from turbo4d.compiler.node_values import shape_of, value_of
from turbo4d.compiler.spelled_call import Args, Call, Rule, Spelled
from turbo4d.compiler.view_spelling import MANY, VIEWS

aten = torch.ops.aten


def _dropout(node: fx.Node, args: Args, kwargs: dict[str, Any]) -> Spelled:
    if args[2] and args[1] > 0:
        raise CaptureError(
            f"the forward draws random numbers: dropout of {args[1]} in training mode; "
            "call model.eval() before compiling."
        )
    return args[0]


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


RULES: Mapping[Any, Rule] = {
    **VIEWS,
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
    **dict.fromkeys(
        (
            aten.new_zeros.default,
            aten.new_ones.default,
            aten.new_full.default,
            aten.zeros_like.default,
            aten.ones_like.default,
            aten.full_like.default,
        ),
        _filled,
    ),
    aten.dropout.default: _dropout,
    aten.feature_dropout.default: _dropout,
    aten.softmax.int: _softmax,
}
SPELLED = frozenset(RULES) | frozenset(MANY)
"""Operators that canonicalise rewrites, whether or not a trace would have opened them up."""
