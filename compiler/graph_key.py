"""graph-key: all that the canonical graph of a capture depends on, as one digest.

Dynamo reads a module anew in each process and hands over a graph of torch's own functions, with the
forms of what they are given. What comes of that graph follows from its text, from a few switches of
torch's and from our code: where the digest is equal, so is the canonical graph. Where the text does
not say everything (a function that is not torch's, a graph within, a tensor held by the graph),
there is no digest.
"""

from __future__ import annotations

import builtins
import hashlib
import math
import operator
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, fx
from turbo4d.compiler.canonicalise import Row
from turbo4d.compiler.compat import is_fake, is_operator, tracing_state
from turbo4d.compiler.dynamo_compat import module_of
from turbo4d.compiler.graph_file import NAMESPACES

_HOMES = (builtins, operator, math, torch, torch.nn.functional, torch.Tensor)
# What makes a graph, and what writes it down and reads it again.
_CODE = (
    "autocast", "autocast_compat", "canonicalise", "capture", "changing_numbers", "compat",
    "dynamo_compat", "graph_file", "graph_key", "graph_reading", "graph_store",
    "inline_checkpoints", "ir", "node_values", "spelled_call", "spelling", "static_shapes",
    "view_spelling",
)  # fmt: skip
# A file names a device by its kind alone.
_DEVICES = (torch.device("cpu"), torch.device("meta"), torch.device("cuda", 0))


class _UntoldError(Exception):
    """The text of a graph does not say everything."""


def graph_key(gm: fx.GraphModule, example_inputs: Sequence[Any], rows: Sequence[Row]) -> str | None:
    """The digest, or None where the graph's text does not say everything.

    Args:
        gm: Dynamo's graph.
        example_inputs: a tensor for each of its placeholders.
        rows: what each of them holds.
    """
    state = tracing_state()
    if state is None:
        return None
    try:
        lines = [*map(_form, example_inputs), *map(_line, gm.graph.nodes)]
    except _UntoldError:
        return None
    lines += [f"{row.kind} {row.target} {row.position}" for row in rows]
    return hashlib.sha256("\n".join([*lines, state, _code()]).encode()).hexdigest()


def _form(value: Any) -> str:
    plain = is_fake(value) or type(value) in (Tensor, torch.nn.Parameter)
    if not plain or value.device not in _DEVICES or value.layout != torch.strided:
        raise _UntoldError
    sides = (*value.shape, *value.stride())
    if any(type(side) is not int for side in sides):
        raise _UntoldError
    return f"{tuple(value.shape)} {value.stride()} {value.dtype} {value.device}"


def _line(node: fx.Node) -> str:
    if node.op not in ("placeholder", "call_function", "call_method", "output"):
        raise _UntoldError
    target = _function(node.target) if node.op == "call_function" else str(node.target)
    args, kwargs = _argument(node.args), _argument(node.kwargs)
    return f"{node.name} {node.op} {target} {args} {kwargs} {module_of(node)}"


@cache
def _function(target: Any) -> str:
    if is_operator(target) and str(target).partition(".")[0] in NAMESPACES:
        return str(target)
    name = str(getattr(target, "__name__", ""))
    home = next((home for home in _HOMES if getattr(home, name, None) is target), None)
    if home is None:
        raise _UntoldError
    return f"{home.__name__}.{name}"


def _argument(value: Any) -> str:
    match value:
        case fx.Node():
            return f"%{value.name}"
        case None | bool() | int() | float() | complex() | str():
            return repr(value)
        case tuple() | list():
            kind = "(" if isinstance(value, tuple) else "["
            return kind + ",".join(map(_argument, cast("Sequence[Any]", value)))
        case dict():
            given = cast("Mapping[Any, Any]", value).items()
            return "{" + ",".join(f"{_argument(key)}:{_argument(of)}" for key, of in given)
        case slice():
            part = cast("slice[Any, Any, Any]", value)
            return f"slice({_argument((part.start, part.stop, part.step))}"
        case torch.dtype() | torch.layout() | torch.memory_format():
            return str(value)
        case torch.device() if str(value) == value.type or value in _DEVICES:
            return str(value)
        case _ if value is Ellipsis:
            return "..."
        case _:
            raise _UntoldError


@cache
def _code() -> str:
    """A digest of the code that makes graphs of traces."""
    digest = hashlib.sha256()
    for name in _CODE:
        path: Any = import_module(f"turbo4d.compiler.{name}").__file__
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()
