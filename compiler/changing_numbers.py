"""changing-numbers: a Python number that differs from call to call becomes an input without axes.

    rewrite:  %e = torch.tensor([t]);  %x / (t**2 + 1) ** 0.5        # t: a timestep, or a sigma
       ->     the same calls of a tensor of shape () that holds t

Left to itself torch.compile compiles the second such number it sees for every number to come, and
hands it over as an argument. A float stays a double until it meets a tensor, and takes that
tensor's dtype where Python's would; so the numbers are those of the module.

Requires  Dynamo's graph.
Ensures   every call takes such a number as a tensor; an integer that says a size, or is used in
          another way that no tensor can be, stays an integer for `static_shapes` to settle.
Error     exact.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, fx

from . import dynamo_compat
from .errors import CaptureError

_OPS: Any = operator
_PLAIN = (operator.add, operator.sub, operator.mul, operator.neg)
_AS_DOUBLES: tuple[Any, ...] = (_OPS.truediv, _OPS.pow)
_WITH_TENSORS: tuple[Any, ...] = (
    *_PLAIN,
    *_AS_DOUBLES,
    *(_OPS.iadd, _OPS.isub, _OPS.imul, _OPS.itruediv),
    *(torch.add, torch.sub, torch.mul, torch.div, torch.true_divide, torch.pow),
)
_METHODS = ("add", "sub", "mul", "div", "true_divide", "pow", "add_", "sub_", "mul_", "div_")


class _UnfitError(Exception):
    """A call that takes a number in a way that no tensor can be taken."""


def as_tensors(
    gm: fx.GraphModule, example_inputs: Sequence[Any]
) -> tuple[fx.GraphModule, list[Any], tuple[int, ...]]:
    """The graph with its changing numbers as tensors; what it was made of stays as it is.

    Args:
        gm: Dynamo's graph.
        example_inputs: its flat arguments.

    Returns:
        The graph, its arguments, and the positions of those that are Python integers.

    Raises:
        CaptureError: a float that no tensor can stand for.
    """
    inputs = list(example_inputs)
    integers: list[int] = []
    for at, node in enumerate(gm.graph.find_nodes(op="placeholder")):
        if isinstance(inputs[at], torch.SymInt):
            if (changed := _without_number(gm, at)) is not None:
                gm, inputs[at] = changed, dynamo_compat.number_like(inputs, torch.int64)
                integers.append(at)
        elif dynamo_compat.is_python_float(node):
            gm = _without_number(gm, at, dynamo_compat.source_of(node)) or gm
    return gm, inputs, tuple(integers)


def _without_number(gm: fx.GraphModule, at: int, name: str | None = None) -> fx.GraphModule | None:
    """The graph with one number as a tensor; None, or an error by its name, where that is unfit."""
    changed = fx.GraphModule(gm, copy.deepcopy(gm.graph))
    try:
        _Rewriting(changed.graph, changed.graph.find_nodes(op="placeholder")[at]).run()
    except _UnfitError as error:
        if name is None:
            return None
        raise CaptureError(
            f"{name} is a Python float that changes from call to call, and {error} takes it as a "
            "number; wanted a tensor. Pass torch.tensor(...) of it."
        ) from error
    changed.recompile()
    return changed


class _Rewriting:
    """One graph being rewritten.

    Args:
        graph: changed in place.
        number: its placeholder of a number.
    """

    def __init__(self, graph: fx.Graph, number: fx.Node) -> None:
        self._graph = graph
        # For each node whose value is a number, the node of its tensor.
        self._tensors: dict[fx.Node, fx.Node] = {number: number}

    def run(self) -> None:
        """Rewrite every call that takes a number."""
        for node in [*self._graph.nodes]:
            if node in self._tensors or not self._tensors.keys() & {*node.all_input_nodes}:
                continue
            with self._graph.inserting_before(node):
                made = self._made(node)
            made.meta.update(node.meta)
            if _is_number(node):
                self._tensors[node] = made
            else:
                node.replace_all_uses_with(made)
        for node in reversed([*self._graph.nodes]):
            number = node in self._tensors and node.op != "placeholder"
            if not node.users and (number or self._tensors.keys() & {*node.all_input_nodes}):
                if node.op not in ("placeholder", "output"):
                    self._graph.erase_node(node)

    def _made(self, node: fx.Node) -> fx.Node:
        target: Any = node.target
        if node.op == "call_method" and target == "item":
            return self._tensors[node.args[0]]  # type: ignore[index]
        if _is_number(node):
            return self._arithmetic(node, target)
        if dynamo_compat.makes_tensor(target):
            return self._tensor(node, node.args[0])
        if target is torch.full:
            return self._full(node)
        if target in _WITH_TENSORS or (node.op == "call_method" and target in _METHODS):
            return self._call(node, node.op, target, self._meets(node))
        if target in (torch.select, operator.getitem):
            return self._row(node)
        raise _UnfitError(_named(node))

    def _arithmetic(self, node: fx.Node, target: Any) -> fx.Node:
        function = dynamo_compat.tensor_function_of(target)
        if target in _PLAIN:
            return self._call(node, "call_function", target, self._tensor_of)
        if target in _AS_DOUBLES or function is not None:
            return self._call(node, "call_function", function or target, self._double_of)
        raise _UnfitError(_named(node))

    def _call(self, node: fx.Node, op: str, target: Any, of: Callable[[Any], Any]) -> fx.Node:
        args, kwargs = fx.map_arg(node.args, of), fx.map_arg(node.kwargs, of)
        return self._graph.create_node(op, target, args, kwargs)  # type: ignore[arg-type]

    def _tensor_of(self, node: fx.Node) -> fx.Node:
        return self._tensors.get(node, node)

    def _double_of(self, node: fx.Node) -> fx.Node:
        return self._cast(self._tensor_of(node), torch.float64)

    def _cast(self, node: fx.Node, dtype: torch.dtype) -> fx.Node:
        return self._graph.call_method("to", (node, dtype))

    def _meets(self, node: fx.Node) -> Callable[[fx.Node], fx.Node]:
        """A number beside a tensor: of a double's precision, or, where that would win, cast."""
        result: Any = node.meta["example_value"]
        wins = all(_dims(one) == 0 or not _floats(one) for one in node.all_input_nodes
                   if one not in self._tensors)  # fmt: skip

        def of(operand: fx.Node) -> fx.Node:
            if operand not in self._tensors:
                return operand
            return self._cast(self._tensors[operand], result.dtype if wins else torch.float64)

        return of

    def _tensor(self, node: fx.Node, data: Any) -> fx.Node:
        """torch.tensor of a number, or of a list of one."""
        depth = 0
        while isinstance(data, Sequence) and len(cast("Sequence[Any]", data)) == 1:
            data, depth = cast("Sequence[Any]", data)[0], depth + 1
        if data not in self._tensors:
            raise _UnfitError(_named(node))
        return self._filled(node, data, [1] * depth)

    def _full(self, node: fx.Node) -> fx.Node:
        size: Any = node.args[0] if node.args else node.kwargs.get("size")
        fill: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("fill_value")
        sides: list[Any] = [size] if isinstance(size, int) else [*size]
        if fill not in self._tensors or not all(isinstance(side, int) for side in sides):
            raise _UnfitError(_named(node))
        return self._filled(node, fill, sides)  # type: ignore[arg-type]

    def _filled(self, node: fx.Node, number: fx.Node, sides: list[Any]) -> fx.Node:
        value: Tensor = node.meta["example_value"]
        cast = self._graph.call_method(
            "to", (self._tensors[number],), {"dtype": value.dtype, "device": value.device}
        )
        if prod(sides) == 1:
            return self._graph.call_method("reshape", (cast, sides))
        spread = self._graph.call_method("expand", (cast, sides))
        return self._graph.call_method("clone", (spread,), {
            "memory_format": torch.contiguous_format})  # fmt: skip

    def _row(self, node: fx.Node) -> fx.Node:
        """A row of a table, by its number."""
        table, axis, index = (
            node.args if node.target is torch.select else (node.args[0], 0, node.args[1])
        )
        if index not in self._tensors or table in self._tensors:
            raise _UnfitError(_named(node))
        at = self._graph.call_method("reshape", (self._tensors[index], [1]))  # type: ignore[index]
        rows = self._graph.call_function(torch.index_select, (table, axis, at))
        return self._graph.call_method("squeeze", (rows, axis))


def _is_number(node: fx.Node) -> bool:
    kinds = (torch.SymInt, torch.SymFloat, int, float)
    return isinstance(node.meta.get("example_value"), kinds)


def _dims(node: fx.Node) -> int:
    return node.meta["example_value"].dim()


def _floats(node: fx.Node) -> bool:
    return node.meta["example_value"].is_floating_point()


def _named(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))
