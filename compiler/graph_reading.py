"""The graph of a JSON file, without running anything that the file says.

A call's target is looked up among torch's own operators, and every name is checked before it can
become a line of generated code. Values come back as fake tensors: with a shape, without data.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import fx, nn
from turbo4d.compiler.compat import fake_mode, is_operator, late_module
from turbo4d.compiler.errors import GraphFileError
from turbo4d.compiler.graph_file import NAMESPACES, PLAIN, WORDS, allowed

# Values without data by what they look like: making one takes longer than all else of a node.
_Forms = dict[str, torch.Tensor]


def graph_of(found: Any) -> fx.GraphModule:
    """The graph of plain values; each value node has a fake tensor for `meta["val"]`.

    Raises:
        GraphFileError: what is no graph, or calls what is no operator of torch's.
    """
    with fake_mode():
        return _graph_of(found, {})


def _graph_of(found: Any, forms: _Forms) -> fx.GraphModule:
    root = nn.Module()
    for name, branch in _field(found, "graphs", dict, "the graph").items():
        setattr(root, _name(name), _graph_of(branch, forms))
    graph = fx.Graph()
    env: dict[str, fx.Node] = {}
    for row in _field(found, "nodes", list, "the graph"):
        _add_node(graph, root, row, env, forms)
    return late_module(root, graph, "Denoiser")


def _add_node(
    graph: fx.Graph, root: nn.Module, row: Any, env: dict[str, fx.Node], forms: _Forms
) -> None:
    name = _name(_field(row, "name", str, "a node"))
    op = _field(row, "op", str, f"%{name}")
    if name in env:
        raise GraphFileError(f"%{name} is there twice.")
    if op == "placeholder":
        node = graph.placeholder(name)
    elif op == "get_attr":
        target = _field(row, "target", str, f"%{name}")
        if not isinstance(root.__dict__.get("_modules", {}).get(target), fx.GraphModule):
            raise GraphFileError(f"%{name} reads {target!r}, which is none of the file's graphs.")
        node = graph.create_node("get_attr", target, name=name)
    elif op == "output":
        [returned] = _read(_field(row, "args", list, f"%{name}"), env, name)
        node = graph.output(returned)
    elif op == "call_function":
        target = _target(_field(row, "target", str, f"%{name}"), name)
        args = _read(_field(row, "args", list, f"%{name}"), env, name)
        given = _field(row, "kwargs", dict, f"%{name}")
        kwargs = {_name(key): _read(value, env, name) for key, value in given.items()}
        node = graph.create_node("call_function", target, tuple(args), kwargs, name=name)
    else:
        raise GraphFileError(f"%{name} is a {op!r}; wanted a flat graph of functions.")
    node.name = name  # a rewrite may have given a name that FX would number
    if "val" in row:
        node.meta["val"] = _value(row["val"], name, forms)
    env[name] = node


def _target(name: str, node: str) -> Callable[..., Any]:
    if name in PLAIN:
        return PLAIN[name]
    namespace, _, rest = name.partition(".")
    packet, _, overload = rest.partition(".")
    if namespace in NAMESPACES:
        found = getattr(getattr(getattr(torch.ops, namespace), packet, None), overload, None)
        if is_operator(found) and str(found) == name:
            return cast("Callable[..., Any]", found)
    raise GraphFileError(f"%{node} calls {name!r}; a graph file holds {allowed()}.")


def _read(value: Any, env: Mapping[str, fx.Node], node: str) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [_read(part, env, node) for part in cast("list[Any]", value)]
        case {"tuple": parts}:
            return tuple(_read(part, env, node) for part in _listed(parts, node))
        case {"node": str() as name} if name in env:
            return env[name]
        case {"node": name}:
            raise GraphFileError(f"%{node} reads %{name}, which no line above it defines.")
        case {"float": "inf" | "-inf" | "nan" as text}:
            return float(text)
        case _:
            return _word(value, node)


def _word(value: Any, node: str) -> Any:
    """An argument that is something of torch's."""
    match value:
        case {"device": str() as text}:
            return _device(text, node)
        case {"dtype": name}:
            return _constant("dtype", name, node)
        case {"layout": name}:
            return _constant("layout", name, node)
        case {"memory_format": name}:
            return _constant("memory_format", name, node)
        case _:
            raise GraphFileError(f"%{node} has an argument that is none: {value!r}.")


def dtype_of(name: str) -> torch.dtype:
    """The dtype that torch calls so.

    Raises:
        GraphFileError: there is none.
    """
    return _constant("dtype", name, "constant")


def _constant(kind: str, name: Any, node: str) -> Any:
    found = getattr(torch, str(name), None)
    if not isinstance(found, WORDS[kind]):
        raise GraphFileError(f"%{node}: torch has no {kind} {name!r}.")
    return found


def _device(text: str, node: str) -> torch.device:
    try:
        return torch.device(text)
    except RuntimeError as error:
        raise GraphFileError(f"%{node}: torch has no device {text!r}.") from error


def _value(found: Any, node: str, forms: _Forms) -> Any:
    match found:
        case list():
            return [_value(part, node, forms) for part in cast("list[Any]", found)]
        case {"tuple": parts}:
            return tuple(_value(part, node, forms) for part in _listed(parts, node))
        case {"dtype": name, "shape": shape, "strides": strides, "device": str() as device}:
            dtype = _constant("dtype", name, node)
            sides, steps = _listed(shape, node), _listed(strides, node)
            form = f"{name} {sides} {steps} {device}"
            if form not in forms:
                where = _device(device, node)
                try:
                    forms[form] = torch.empty_strided(sides, steps, dtype=dtype, device=where)
                except (RuntimeError, TypeError) as error:
                    raise GraphFileError(f"%{node} has no such value: {found}.") from error
            return forms[form]
        case _:
            raise GraphFileError(f"%{node} has a value that is none: {found!r}.")


def _listed(found: Any, node: str) -> list[Any]:
    if not isinstance(found, list):
        raise GraphFileError(f"%{node} has {found!r}; wanted a list.")
    return cast("list[Any]", found)


def _name(text: Any) -> str:
    """A name that may become an identifier of generated code."""
    plain = isinstance(text, str) and text.isascii() and text.isidentifier()
    if not plain or keyword.iskeyword(text):
        raise GraphFileError(f"{text!r} is no name of a node.")
    return text


def _field(found: Any, name: str, kind: type[Any], place: str) -> Any:
    value = cast("Mapping[str, Any]", found).get(name) if isinstance(found, dict) else None
    if not isinstance(value, kind):
        raise GraphFileError(f"{place} has no {name!r} of type {kind.__name__}.")
    return value
