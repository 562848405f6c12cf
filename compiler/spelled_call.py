"""A call as a rule of `spelling` writes it, and the one way to give its arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx
from turbo4d.compiler.compat import arguments_of, is_operator


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
