"""What a manifest says of the call that a bundle is built for; `call_form` reads it back."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from turbo4d.runtime.errors import CallError

from .call_form import KINDS
from .call_nodes import Node, node_of, said
from .dtypes import name_of

_KIND_NAMES = {kind: name for name, kind in KINDS.items()}


def form_of_call(
    parameters: Mapping[str, inspect.Parameter],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    input_paths: Sequence[str],
    names: Sequence[str],
    result: object,
) -> dict[str, object]:
    """What a manifest says of a call.

    Args:
        parameters: of the forward.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.
        input_paths: the path of every leaf of (args, kwargs), in the order of torch's flattening.
        names: of the signature's inputs, each one of the paths.
        result: what the forward returns; its tensors are numbered in the order of torch's
            flattening.

    Raises:
        CallError: for what a manifest cannot say.
    """
    # What is no tensor has a path too, and torch takes None for a leaf.
    paths = iter(input_paths)
    inputs: dict[str, Tensor] = {}

    def of(value: object, place: str) -> Node:
        return _numbered(node_of(value, place, lambda tensor: {"input": tensor}), paths, inputs)

    placed = [of(value, f"argument {at}") for at, value in enumerate(args)]
    named = {name: of(value, f"argument {name!r}") for name, value in kwargs.items()}
    if next(paths, None) is not None:
        raise CallError(f"the call has fewer leaves than the {len(input_paths)} that were traced.")
    bound = inspect.Signature([*parameters.values()]).bind(*placed, **named).arguments
    if missing := [name for name in names if name not in inputs]:
        raise CallError(f"input {missing[0]!r} is no tensor of the call.")
    count = iter(range(1 << 30))
    return {
        "parameters": [
            {
                "name": each.name,
                "kind": _KIND_NAMES[each.kind],
                "default": None
                if each.default is inspect.Parameter.empty
                else _default(each.default),
            }
            for each in parameters.values()
        ],
        "arguments": {name: _grouped(parameters[name], value) for name, value in bound.items()},
        "inputs": [
            {
                "name": name,
                "shape": [int(side) for side in inputs[name].shape],
                "dtype": name_of(inputs[name].dtype),
            }
            for name in names
        ],
        "result": node_of(result, "the result", lambda _: {"output": next(count)}),
    }


def _numbered(node: Node, paths: Iterator[str], inputs: dict[str, Tensor]) -> Node:
    """The node with each tensor's path in its place."""
    ((kind, held),) = node.items()
    if kind in ("tuple", "list"):
        return {kind: [_numbered(inner, paths, inputs) for inner in held]}
    if kind in ("dict", "record"):
        return {kind: {key: _numbered(inner, paths, inputs) for key, inner in held.items()}}
    path = next(paths, None)
    if path is None:
        raise CallError("the call has more leaves than were traced.")
    if kind != "input":
        return node
    inputs[path] = held
    return {"input": path}


def _grouped(parameter: inspect.Parameter, value: Any) -> Node:
    """The node of what `bind` gives for a parameter, which may stand for several arguments."""
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return {"tuple": [*value]}
    return {"dict": value} if parameter.kind is inspect.Parameter.VAR_KEYWORD else value


def _default(value: object) -> Node:
    try:
        return node_of(value, "a default", lambda tensor: {"opaque": said(tensor)})
    except CallError:
        return {"opaque": said(value)}
