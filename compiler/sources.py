"""sources: the placeholders of Dynamo's graph, by the names that the module itself would use."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

_STEP = re.compile(
    r"\._(?P<table>modules|parameters|buffers)\[(?P<quote>['\"])(?P<entry>.*?)(?P=quote)\]"
    r"|\.(?P<plain>[A-Za-z_]\w*)"
    r"|\[(?P<item>[^\]]*)\]"
)
_ROOT = re.compile(r"[LG]\[(?P<quote>['\"])(?P<name>.*?)(?P=quote)\]")
_ITEM = re.compile(r"\[(?:(?P<quote>['\"])(?P<key>.*?)(?P=quote)|(?P<index>\d+))\]")
# How Dynamo reaches a table of a module whose class has a `__getattr__` of its own.
_TABLE = re.compile(
    r"\.__dict__\[(?P<quote>['\"])(?P<table>_modules|_parameters|_buffers)(?P=quote)\]"
)


@dataclass(frozen=True)
class Source:
    """A placeholder's source, read apart.

    Args:
        kind: "weight", "constant" (a tensor held by a module outside its state) or "input".
        root: the expression of the module, "" for an input.
        target: dotted name below the root, or the input's path.
    """

    kind: Literal["weight", "constant", "input"]
    root: str
    target: str


def read_sources(expressions: Sequence[str], signature: inspect.Signature | None) -> list[Source]:
    """Read expressions such as `L['self']._modules['0']._parameters['weight']`.

    Args:
        expressions: of all placeholders of a graph.
        signature: of the module's forward, where the module is known.
    """
    expressions = [_TABLE.sub(r".\g<table>", expression) for expression in expressions]
    found = [_read(expression) for expression in expressions]
    roots = {source.root for source in found if source.root}
    for index, expression in enumerate(expressions):
        if found[index].kind == "input":
            held = next((root for root in roots if expression.startswith(root + ".")), None)
            found[index] = (
                Source("constant", held, expression[len(held) + 1 :])
                if held
                else Source("input", "", _path(found[index].target, signature, roots))
            )
    if len(roots) > 1:
        # Two modules in one graph: their weights may share names.
        found = [replace(s, target=f"{s.root}.{s.target}") if s.root else s for s in found]
    return found


def _read(expression: str) -> Source:
    root = _ROOT.match(expression)
    if root is None:
        return Source("input", "", expression)
    names: list[str] = []
    kind: Literal["weight", "constant", "input"] = "input"
    module_end = where = root.end()
    for step in _STEP.finditer(expression, root.end()):
        if step.start() != where:
            break
        where = step.end()
        if step["table"]:
            names.append(step["entry"])
            kind = "constant" if step["table"] == "modules" else "weight"
        elif step["plain"]:
            names.append(step["plain"])
        elif kind == "input":
            module_end = where
        else:
            names.append(step["item"].strip("'\""))
    if kind == "input":
        return Source("input", "", root["name"] + expression[root.end() :])
    return Source(kind, expression[:module_end], ".".join(names))


def _path(path: str, signature: inspect.Signature | None, roots: set[str]) -> str:
    """The path as the forward names it, through the `*args, **kwargs` of a decorator."""
    name, bracket, _ = path.partition("[")
    item = _ITEM.match(path, len(name)) if bracket else None
    if item is None:
        return path
    parameters: Mapping[str, inspect.Parameter] = signature.parameters if signature else {}
    rest = path[item.end() :]
    if name in parameters:
        collects = parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        return item["key"] + rest if collects and item["key"] is not None else path
    if name == "kwargs" and item["key"] is not None:
        return item["key"] + rest
    if name == "args" and item["index"] is not None:
        # A decorator of a method holds the module itself as the first argument.
        shift = any(root.endswith("['args'][0]") for root in roots)
        at = int(item["index"]) - shift
        if 0 <= at < len(parameters):
            return list(parameters)[at] + rest
    return path
