"""A graph as JSON text and back, for the file that repeats a failed pass.

Holds what a pass looks at: the calls, their arguments, and each value's shape, dtype, strides and
device. Weights and constants are placeholders, so no data is needed. `graph_reading.py` reads it.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, fx
from turbo4d.compiler.compat import is_operator
from turbo4d.compiler.errors import GraphFileError

COND = torch.ops.higher_order.cond
# What a node may call, beside the operators of these namespaces.
NAMESPACES = ("aten", "prims")
PLAIN: Mapping[str, Callable[..., Any]] = {"getitem": operator.getitem, "cond": COND}
# What of torch an argument may be, by the word that marks it in the file.
WORDS: Mapping[str, type[Any]] = {
    "dtype": torch.dtype,
    "layout": torch.layout,
    "memory_format": torch.memory_format,
}


def graph_json(gm: fx.GraphModule) -> dict[str, Any]:
    """A graph as plain values: its nodes in order, and the graphs that its nodes take, by name.

    Raises:
        GraphFileError: a target or an argument that the file cannot hold.
    """
    nodes = [_node_json(node) for node in gm.graph.nodes]
    inner = [str(node.target) for node in gm.graph.nodes if node.op == "get_attr"]
    graphs: dict[str, Any] = {}
    for name in inner:
        branch = getattr(gm, name, None)
        if not isinstance(branch, fx.GraphModule):
            raise GraphFileError(f"%{name} is no graph; wanted weights and constants as inputs.")
        graphs[name] = graph_json(branch)
    return {"nodes": nodes, "graphs": graphs}


def json_text(found: Mapping[str, Any], indent: str = "") -> str:
    """Plain values as text with one line per node, so that two files can be compared."""
    lines: list[str] = []
    for key, value in found.items():
        if key == "nodes":
            rows = ",\n".join(f"{indent}  {json.dumps(row, allow_nan=False)}" for row in value)
            text = f"[\n{rows}\n{indent} ]"
        elif isinstance(value, dict) and (key in ("graph", "graphs") or "nodes" in value):
            text = json_text(cast("Mapping[str, Any]", value), f"{indent} ")
        else:
            text = json.dumps(value, allow_nan=False)
        lines.append(f"{indent} {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def _node_json(node: fx.Node) -> dict[str, Any]:
    row: dict[str, Any] = {"op": node.op, "name": node.name}
    if node.op == "call_function":
        row["target"] = _target_name(node)
        row["args"] = [_written(argument, node) for argument in node.args]
        row["kwargs"] = {key: _written(value, node) for key, value in node.kwargs.items()}
    elif node.op == "output":
        row["args"] = [_written(argument, node) for argument in node.args]
    elif node.op not in ("placeholder", "get_attr"):
        raise GraphFileError(f"%{node.name} is a {node.op}; wanted a flat graph of functions.")
    elif node.op == "get_attr":
        row["target"] = str(node.target)
    if node.meta.get("val") is not None:
        row["val"] = _value_json(node.meta["val"], node)
    return row


def _target_name(node: fx.Node) -> str:
    for name, function in PLAIN.items():
        if node.target is function:
            return name
    name = str(node.target)
    if is_operator(node.target) and name.partition(".")[0] in NAMESPACES:
        return name
    raise GraphFileError(f"%{node.name} calls {name}; a graph file holds {allowed()}.")


def allowed() -> str:
    """What a node of a graph file may call, in words."""
    return f"operators of {' and '.join(NAMESPACES)}, {' and '.join(sorted(PLAIN))}"


def _written(value: Any, node: fx.Node) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"float": str(value)}
        case fx.Node():
            return {"node": value.name}
        case list():
            return [_written(part, node) for part in cast("list[Any]", value)]
        case tuple():
            return {"tuple": [_written(part, node) for part in cast("tuple[Any, ...]", value)]}
        case torch.device():
            return {"device": value.type}
        case torch.dtype() | torch.layout() | torch.memory_format():
            kind = next(kind for kind, of in WORDS.items() if isinstance(value, of))
            return {kind: str(value).removeprefix("torch.")}
        case _:
            raise GraphFileError(f"%{node.name} has an argument of type {type(value).__name__}.")


def _value_json(value: Any, node: fx.Node) -> Any:
    if isinstance(value, Tensor):
        return {
            "dtype": str(value.dtype).removeprefix("torch."),
            "shape": [int(side) for side in value.shape],
            "strides": [int(step) for step in value.stride()],
            "device": value.device.type,
        }
    if isinstance(value, (list, tuple)):
        parts = [_value_json(part, node) for part in cast("list[Any]", value)]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    raise GraphFileError(f"%{node.name} has a value of type {type(value).__name__}.")
