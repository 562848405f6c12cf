"""A nest of tuples, lists and dicts as JSON: where a call has its tensors, and what else it has.

Each node is an object of one entry:

    {"input": name}, {"output": position}    a tensor
    {"tuple": [...]}, {"list": [...]}        what they say
    {"dict": {...}}, {"record": {...}}       a dict; a result with named fields
    {"literal": value}, {"dtype": name}      what was built in: null, a number, a text
    {"opaque": text}                         a default that JSON cannot say
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from turbo4d.runtime.errors import BundleError, CallError

from .dtypes import dtype_named, name_of

Node = Mapping[str, Any]
_KINDS = ("dict", "dtype", "input", "list", "literal", "opaque", "output", "record", "tuple")


class Record(dict[str, object]):
    """A result with named fields; each is had by name, as an attribute or by its position."""

    def __getattr__(self, name: str) -> object:
        if name in self:
            return self[name]
        raise AttributeError(f"the result has no field {name!r}; it has {', '.join(self)}")

    def __getitem__(self, key: str | int) -> object:
        return [*self.values()][key] if isinstance(key, int) else super().__getitem__(key)


def node_of(value: object, place: str, tensor: Callable[[Tensor], Node]) -> Node:
    """The node of a value, its leaves in the order in which torch flattens it.

    Args:
        value: a nest of tuples, lists and dicts.
        place: what the value is called in an error.
        tensor: makes the node of a tensor.

    Raises:
        CallError: for what JSON cannot say.
    """
    if isinstance(value, Tensor):
        return tensor(value)
    if isinstance(value, torch.dtype):
        return {"dtype": name_of(value)}
    if isinstance(value, tuple | list):
        kind = "list" if isinstance(value, list) else "tuple"
        items = cast("Sequence[object]", value)
        return {kind: [node_of(item, f"{place}[{at}]", tensor) for at, item in enumerate(items)]}
    if (fields := _fields(value)) is not None:
        kind = "dict" if type(value) is dict else "record"
        nodes: dict[str, Node] = {}
        for key, item in fields.items():
            if not isinstance(key, str):
                raise CallError(f"{place} has the key {key!r}; a bundle takes keys that are texts.")
            nodes[key] = node_of(item, f"{place}[{key!r}]", tensor)
        return {kind: nodes}
    finite = not isinstance(value, float) or math.isfinite(value)
    if value is None or (isinstance(value, bool | int | float | str) and finite):
        return {"literal": value}
    raise CallError(
        f"{place} is {said(value)}; a bundle takes tensors, tuples, lists, dicts, dtypes, texts "
        "and finite numbers."
    )


def leaves(node: object, place: str) -> Iterator[tuple[str, Any]]:
    """Every leaf of a node that was read from a file: its kind and what it holds.

    Raises:
        BundleError: where it is no node.
    """
    if not isinstance(node, dict) or len(cast("Node", node)) != 1:
        raise BundleError(f"{place} is no node of a call; wanted an object of one entry.")
    ((kind, held),) = cast("Node", node).items()
    if kind not in _KINDS:
        raise BundleError(f"{place} is a {kind!r}; a node of a call is {', '.join(_KINDS)}.")
    if kind in ("tuple", "list") and isinstance(held, list):
        for at, inner in enumerate(cast("list[object]", held)):
            yield from leaves(inner, f"{place}[{at}]")
    elif kind in ("dict", "record") and isinstance(held, dict):
        for key, inner in cast("dict[str, object]", held).items():
            yield from leaves(inner, f"{place}[{key!r}]")
    else:
        _check_leaf(kind, held, place)
        yield kind, held


def gather(node: Node, value: object, place: str, found: dict[str, Tensor]) -> None:
    """Put the tensors of a call's argument under their inputs' names.

    Args:
        node: of the argument in the call that the bundle was built for.
        value: of the argument.
        place: what it is called in an error.
        found: is added to.

    Raises:
        CallError: where the argument is not as it was built for.
    """
    ((kind, held),) = node.items()
    if kind == "input":
        if not isinstance(value, Tensor):
            raise CallError(f"{place} is {said(value)}; the bundle was built for a tensor.")
        found[held] = value
    elif kind in ("tuple", "list"):
        items = _items(value)
        if items is None or len(items) != len(held):
            raise CallError(
                f"{place} is {said(value)}; the bundle was built for a {kind} of {len(held)}."
            )
        for at, (inner, item) in enumerate(zip(held, items, strict=True)):
            gather(inner, item, f"{place}[{at}]", found)
    elif kind in ("dict", "record"):
        _gather_keys(held, value, place, found)
    elif kind == "opaque" or not _same(value, dtype_named(held) if kind == "dtype" else held):
        raise CallError(
            f"{place} is {said(value)}; the bundle was built with {held!r}, which its engines "
            "hold. Call it so, or build a bundle for this call."
        )


def rebuilt(node: Node, outputs: Sequence[Tensor]) -> object:
    """The result that a node describes, of these tensors."""
    kind, held = next(iter(node.items()))
    if kind == "output":
        return outputs[int(held)]
    if kind in ("tuple", "list"):
        items: list[object] = [rebuilt(inner, outputs) for inner in held]
        return tuple(items) if kind == "tuple" else items
    if kind in ("dict", "record"):
        named = {key: rebuilt(inner, outputs) for key, inner in held.items()}
        return named if kind == "dict" else Record(named)
    literal: object = held
    return dtype_named(str(held)) if kind == "dtype" else literal


def said(value: object) -> str:
    """A value in an error, short."""
    if isinstance(value, Tensor):
        return f"a tensor {str(value.dtype).removeprefix('torch.')}{[*value.shape]}"
    if isinstance(value, tuple | list | dict):
        return f"a {type(cast('object', value)).__name__} of {len(cast('Sequence[object]', value))}"
    plain = value is None or isinstance(value, bool | int | float | str | torch.dtype)
    return repr(value) if plain else f"a {type(value).__name__}"


def _gather_keys(
    held: Mapping[str, Node], value: object, place: str, found: dict[str, Tensor]
) -> None:
    fields = _fields(value)
    if fields is None:
        raise CallError(f"{place} is {said(value)}; the bundle was built for a dict.")
    for key in held:
        if key not in fields:
            raise CallError(f"{place} has no {key!r}; the bundle was built with it.")
    for key in fields:
        if key not in held:
            raise CallError(f"{place} has {key!r}; the bundle was built without it. Leave it out.")
    for key, inner in held.items():
        gather(inner, fields[key], f"{place}[{key!r}]", found)


def _items(value: object) -> Sequence[object] | None:
    return cast("Sequence[object]", value) if isinstance(value, tuple | list) else None


def _fields(value: object) -> Mapping[Any, object] | None:
    if isinstance(value, Mapping):
        return cast("Mapping[Any, object]", value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    return None


def _same(value: object, wanted: object) -> bool:
    """Equal and of one type: 1, 1.0 and True lead to different graphs."""
    return type(value) is type(wanted) and value == wanted


def _check_leaf(kind: str, held: object, place: str) -> None:
    wanted: dict[str, type | tuple[type, ...]] = {
        "input": str, "output": int, "dtype": str, "opaque": str,
        "literal": (str, int, float, type(None)),
    }  # fmt: skip
    fits = isinstance(held, wanted.get(kind, ())) and not (
        kind == "output" and isinstance(held, bool)
    )
    if not fits:
        raise BundleError(f"{place} has a {kind!r} that holds {said(held)}.")
    if kind == "dtype":
        dtype_named(str(held))
