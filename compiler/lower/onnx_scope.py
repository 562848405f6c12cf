"""onnx-scope: one ONNX graph being written, node by node: the whole, or a branch inside it."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from turbo4d.passes.base import COND, returned

from .onnx_rules import RULES, args_of, constant
from .onnx_weights import Weights, raw

TYPES = {
    torch.float32: 1, torch.uint8: 2, torch.int8: 3, torch.int16: 5, torch.int32: 6,
    torch.int64: 7, torch.bool: 9, torch.float16: 10, torch.float64: 11, torch.bfloat16: 16,
}  # fmt: skip
"""What ONNX numbers a dtype."""


class Model:
    """What all scopes of one file share: constants and weights."""

    def __init__(self, onnx: Any, held: Mapping[str, Tensor], weights: Weights) -> None:
        self.onnx = onnx
        self.held = held
        self.initialisers: list[Any] = []
        self._weights = weights
        self._constants: dict[tuple[torch.dtype, tuple[int, ...], bytes], str] = {}

    def hold(self, name: str, value: Tensor) -> None:
        """Add a weight."""
        if value.numel() * value.element_size() <= self._weights.inline_bytes:
            self.initialisers.append(self._inline(name, value))
            return
        offset, length = self._weights.place(name, value)
        tensor = self.onnx.TensorProto(
            name=name, data_type=TYPES[value.dtype], dims=value.shape,
            data_location=self.onnx.TensorProto.EXTERNAL,
        )  # fmt: skip
        where = {"location": self._weights.location, "offset": offset, "length": length}
        for key, entry in where.items():
            tensor.external_data.add(key=key, value=str(entry))
        self.initialisers.append(tensor)

    def constant(self, value: Tensor) -> str:
        """The name of a constant; equal ones are one."""
        key = value.dtype, tuple(value.shape), raw(value)
        if key not in self._constants:
            name = self._constants[key] = f"constant_{len(self._constants)}"
            self.initialisers.append(self._inline(name, value))
        return self._constants[key]

    def described(self, name: str, value: Tensor) -> Any:
        """A value's name, type and shape."""
        shape = [int(side) for side in value.shape]
        return self.onnx.helper.make_tensor_value_info(name, TYPES[value.dtype], shape)

    def _inline(self, name: str, value: Tensor) -> Any:
        kind = TYPES[value.dtype]
        return self.onnx.TensorProto(
            name=name, data_type=kind, dims=value.shape, raw_data=raw(value)
        )


class Scope:
    """One graph being written: the whole, or a branch, which reads from the scope around it.

    Args:
        model: that it belongs to.
        module: with the graph and its branches.
        names: of the values known so far.
        prefix: of the names of its own; no two scopes have one.
    """

    def __init__(
        self, model: Model, module: fx.GraphModule, names: dict[fx.Node, str], prefix: str
    ) -> None:
        self.names = names
        self.nodes: list[Any] = []
        self._model = model
        self._module = module
        self._prefix = prefix
        self._count = 0
        self._about = ""
        self._parts: dict[fx.Node, tuple[str, ...]] = {}

    def name(self, value: fx.Node) -> str:
        """What a value is called."""
        return self.names[value]

    def constant(self, value: Tensor) -> str:
        """The name of a constant."""
        return self._model.constant(value)

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Write a node; a dtype among its attributes is written as ONNX numbers it."""
        return self.add_several(kind, inputs, 1, **attributes)[0]

    def add_several(
        self, kind: str, inputs: Sequence[str], count: int, **attributes: Any
    ) -> tuple[str, ...]:
        """As `add`, for a node with several results."""
        results = tuple(f"{self._prefix}value_{self._count + at}" for at in range(1, count + 1))
        self._count += count
        plain: dict[str, Any] = {
            key: TYPES[value] if isinstance(value, torch.dtype) else value
            for key, value in attributes.items()
        }
        made = self._model.onnx.helper.make_node(kind, inputs, results, **plain)
        made.name = f"{self._about}.{kind}.{self._count}"
        self.nodes.append(made)
        return results

    def write(self, outputs: Mapping[fx.Node, str]) -> None:
        """Write all calls.

        Args:
            outputs: what the graph returns, and what that is called outside.
        """
        for node in self._module.graph.nodes:
            if node.op != "call_function":
                continue
            if node.target is COND:
                self._branch(node, outputs)
                continue
            if node.target is operator.getitem:
                self._part(node, outputs)
                continue
            self._about = f"{node.meta.get('module', '')}/{self._prefix}{node.name}"
            wanted = outputs.get(node, self._prefix + node.name)
            found = self._value(node)
            if isinstance(found, tuple):
                self._parts[node] = found
                continue
            if not self.nodes or self.nodes[-1].output[0] != found:  # a constant
                self.names[node] = self.add("Identity", [found]) if node in outputs else found
            if self.nodes and self.nodes[-1].output[0] == self.names.get(node, found):
                self.nodes[-1].output[0] = self.names[node] = wanted

    def _value(self, node: fx.Node) -> str | tuple[str, ...]:
        return RULES[node.target](self, node) if node.all_input_nodes else constant(self, node)

    def _part(self, node: fx.Node, outputs: Mapping[fx.Node, str]) -> None:
        """One result of a call that has several; what a cond gives is named already."""
        source, place = args_of(node)
        if (parts := self._parts.get(source)) is not None:
            found = parts[int(place)]
            self.names[node] = found
            if node in outputs:
                self.names[node] = self.add("Identity", [found])
                self.nodes[-1].output[0] = self.names[node] = outputs[node]

    def _branch(self, node: fx.Node, outputs: Mapping[fx.Node, str]) -> None:
        """Write a cond as an `If`."""
        flag, skipped, computed, operands = args_of(node)
        count = len(node.meta["val"])
        results: list[str] = [f"{self._prefix}{node.name}_{at}" for at in range(count)]
        for user in node.users:
            at = int(args_of(user)[1])
            results[at] = self.names[user] = outputs.get(user, results[at])
        ways = {
            way: self._graph(str(branch.target), operands)
            for way, branch in (("then_branch", skipped), ("else_branch", computed))
        }
        made = self._model.onnx.helper.make_node("If", [self.name(flag)], results, **ways)
        self.nodes.append(made)

    def _graph(self, target: str, operands: Any) -> Any:
        module: Any = self._module.get_submodule(target)
        inside = module.graph.find_nodes(op="placeholder")
        names = {mine: self.names[given] for mine, given in zip(inside, operands, strict=True)}
        scope = Scope(self._model, module, names, f"{target}.")
        results = returned(module.graph)
        outputs = {value: f"{target}.{value.name}" for value in results}
        scope.write(outputs)
        infos = [self._model.described(outputs[value], value.meta["val"]) for value in results]
        return self._model.onnx.helper.make_graph(scope.nodes, target, [], infos)
