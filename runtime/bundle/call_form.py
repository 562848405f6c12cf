"""How a bundle's forward is called and what it returns.

Positional and keyword spelling are the same call. What is no tensor was built in: a call with
another value is refused. In the manifest:

    parameters   of the forward: name, kind, default (null where there is none)
    arguments    by parameter what the call had, as nodes (`call_nodes`)
    inputs       the tensors in the signature's order: name, shape, dtype
    result       a node
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from turbo4d.runtime.errors import BundleError, CallError

from .call_nodes import Node, gather, leaves, rebuilt, said
from .dtypes import dtype_named

KINDS = {
    "positional": inspect.Parameter.POSITIONAL_ONLY,
    "either": inspect.Parameter.POSITIONAL_OR_KEYWORD,
    "more positional": inspect.Parameter.VAR_POSITIONAL,
    "keyword": inspect.Parameter.KEYWORD_ONLY,
    "more keyword": inspect.Parameter.VAR_KEYWORD,
}
"""What a parameter's kind is called in a manifest."""
_EMPTY = inspect.Parameter.empty


@dataclass(frozen=True)
class InputForm:
    """A tensor that the forward takes.

    Args:
        name: in the signature.
        shape: of it.
        dtype: of it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class CallForm:
    """The one call that a bundle was built for.

    Args:
        parameters: of the forward; defaults are nodes.
        arguments: by parameter the node of what the call had.
        inputs: in the order of the signature.
        result: the node of what the forward returns.
    """

    parameters: inspect.Signature
    arguments: Mapping[str, Node]
    inputs: tuple[InputForm, ...]
    result: Node

    @property
    def outputs(self) -> int:
        """How many tensors the result has."""
        return sum(kind == "output" for kind, _ in leaves(self.result, "result"))


def read_call(value: Mapping[str, object]) -> CallForm:
    """The form that a manifest describes.

    Raises:
        BundleError: where it describes none.
    """
    wanted = ("parameters", "arguments", "inputs", "result")
    if sorted(value) != sorted(wanted):
        raise BundleError(f"call has {', '.join(sorted(value))}; wanted {', '.join(wanted)}.")
    parameters = [_parameter(row, at) for at, row in enumerate(_list(value, "parameters"))]
    inputs = tuple(_input(row, at) for at, row in enumerate(_list(value, "inputs")))
    try:
        signature = inspect.Signature(parameters)
    except ValueError as error:
        raise BundleError(f"call: {error}.") from error
    arguments = value["arguments"]
    if not isinstance(arguments, dict):
        raise BundleError(f"call: arguments is {said(arguments)}; wanted an object of nodes.")
    nodes = cast("dict[str, Node]", arguments)
    given: list[str] = []
    for name, node in nodes.items():
        if name not in signature.parameters:
            raise BundleError(f"call: argument {name!r} is none of the forward's parameters.")
        given += _taken(node, f"call: argument {name!r}", "input")
    if len({*given}) != len(given):
        raise BundleError("call: an input stands twice in its arguments.")
    names = [each.name for each in inputs]
    if len({*names}) != len(names) or not {*names} <= {*given}:
        raise BundleError(f"call: its inputs are {names} and its arguments hold {given}.")
    outputs = _taken(value["result"], "call: result", "output")
    if sorted(outputs) != [*range(len(outputs))]:
        raise BundleError(f"call: result holds the outputs {outputs}; wanted each of them once.")
    return CallForm(signature, nodes, inputs, cast("Node", value["result"]))


def flatten(
    form: CallForm,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    device: str | None = None,
) -> list[Tensor]:
    """The inputs of a call, in the signature's order.

    Args:
        form: of the call that the bundle was built for.
        args: positional arguments.
        kwargs: keyword arguments.
        device: type of the device that inputs must be on, None for any.

    Raises:
        CallError: where the call is another one than the bundle was built for.
    """
    try:
        bound = form.parameters.bind(*args, **kwargs).arguments
    except TypeError as error:
        raise CallError(
            f"call: {error}; the forward takes ({', '.join(form.parameters.parameters)})."
        ) from error
    found: dict[str, Tensor] = {}
    for name, node in form.arguments.items():
        if name in bound:
            gather(node, bound.pop(name), f"argument {name!r}", found)
        elif form.parameters.parameters[name].default != node:
            raise CallError(f"argument {name!r} is missing; the bundle was built with it.")
    for name, value in bound.items():
        _check_left_out(form.parameters.parameters[name], value)
    return [_checked(each, found[each.name], device) for each in form.inputs]


def unflatten(form: CallForm, outputs: Sequence[Tensor]) -> Any:
    """What the forward returns, of its flat outputs."""
    return rebuilt(form.result, outputs)


def _checked(form: InputForm, tensor: Tensor, device: str | None) -> Tensor:
    if tensor.shape == form.shape and tensor.dtype == form.dtype:
        if device is None or tensor.device.type == device:
            return tensor
    where = "" if device is None else f" on {device}"
    wanted = f"{str(form.dtype).removeprefix('torch.')}{[*form.shape]}{where}"
    got = said(tensor) + (f" on {tensor.device.type}" if where else "")
    raise CallError(
        f"input {form.name!r} is {got}; the bundle was built for {wanted}, and its engines take "
        "nothing else. Call it so, or build a bundle for this call."
    )


def _check_left_out(parameter: inspect.Parameter, value: object) -> None:
    """An argument that the built call left out must be what it then was."""
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL and value == ():
        return
    if parameter.kind is inspect.Parameter.VAR_KEYWORD and value == {}:
        return
    if parameter.default is _EMPTY:
        raise CallError(
            f"argument {parameter.name!r} is {said(value)}; the bundle was built without it. "
            "Leave it out."
        )
    gather(parameter.default, value, f"argument {parameter.name!r}", {})


def _parameter(row: object, at: int) -> inspect.Parameter:
    fields = _fields(row, f"call: parameter {at}", ("name", "kind", "default"))
    name, kind, default = fields["name"], fields["kind"], fields["default"]
    if not (isinstance(name, str) and name.isidentifier() and isinstance(kind, str)):
        raise BundleError(f"call: parameter {at} is {said(name)} of kind {said(kind)}.")
    if kind not in KINDS:
        raise BundleError(
            f"call: parameter {name!r} is of kind {kind!r}; wanted {', '.join(KINDS)}."
        )
    if default is not None:
        for leaf, _ in leaves(default, f"call: the default of {name!r}"):
            if leaf in ("input", "output"):
                raise BundleError(f"call: the default of {name!r} holds a tensor.")
    try:
        return inspect.Parameter(name, KINDS[kind], default=_EMPTY if default is None else default)
    except ValueError as error:
        raise BundleError(f"call: parameter {name!r}: {error}.") from error


def _input(row: object, at: int) -> InputForm:
    fields = _fields(row, f"call: input {at}", ("name", "shape", "dtype"))
    name, shape, dtype = fields["name"], fields["shape"], fields["dtype"]
    if not isinstance(name, str) or not isinstance(dtype, str) or not isinstance(shape, list):
        raise BundleError(f"call: input {at} is {said(name)}, {said(shape)}, {said(dtype)}.")
    sides = cast("list[object]", shape)
    if any(type(side) is not int or side < 0 for side in sides):
        raise BundleError(f"call: input {name!r} has the shape {sides}; wanted integers from 0.")
    return InputForm(name, tuple(cast("list[int]", sides)), dtype_named(dtype))


def _fields(row: object, place: str, names: Sequence[str]) -> Mapping[str, Any]:
    fields = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
    if sorted(fields) != sorted(names):
        raise BundleError(f"{place} has {sorted(fields)}; wanted {', '.join(names)}.")
    return fields


def _list(value: Mapping[str, object], name: str) -> Sequence[object]:
    held = value[name]
    if not isinstance(held, list):
        raise BundleError(f"call: {name} is {said(held)}; wanted a list.")
    return cast("list[object]", held)


def _taken(node: object, place: str, kind: str) -> list[Any]:
    """The tensors of a node, which holds none of another kind."""
    found: list[Any] = []
    for leaf, held in leaves(node, place):
        if leaf in ("input", "output", "opaque") and leaf != kind:
            raise BundleError(f"{place} holds an {leaf!r}.")
        if leaf == kind:
            found.append(held)
    return found
