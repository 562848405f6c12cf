"""onnx-export: a variant as an ONNX file; a conditional one with an `If` for each region.

Written node by node from the canonical graph. torch.onnx would trace it again, every branch once
more for each cond around it: 58 s and a graph of 123 MB for the tests' smallest network, where this
takes 0.1 s and 0.2 MB (17 regions; 2 cores of an AMD EPYC, torch 2.13). A branch reads what it
needs from around it, so no weight is named twice, and none is copied.

    weights and constants   initialisers, in a file beside the graph that several graphs may share
    i_<argument>            an argument of the call
    prologue_<value>        a value of the prologue
    slot_<region>           a slot; it goes out again as new_slot_<region>
    skip_<region>           whether the region is skipped

A prologue is written in the same way; it gives each value as `prologue_<value>`.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from turbo4d.compiler.conditional import branches
from turbo4d.compiler.errors import LowerError
from turbo4d.passes.base import COND, returned, slot_name

from .onnx_rules import RULES, args_of, constant, refusals
from .onnx_weights import ALIGNMENT as ALIGNMENT
from .onnx_weights import WeightFile as WeightFile
from .onnx_weights import Weights, raw

if TYPE_CHECKING:
    from turbo4d.compiler.prologue import Prologue
    from turbo4d.compiler.specialise import Variant

OPSET, IR_VERSION = 20, 10
BFLOAT16_OPSET = 22
"""The first in which every operator takes bfloat16; a file without it keeps the older, which more
engines read."""

_TYPES = {
    torch.float32: 1, torch.uint8: 2, torch.int8: 3, torch.int16: 5, torch.int32: 6,
    torch.int64: 7, torch.bool: 9, torch.float16: 10, torch.float64: 11, torch.bfloat16: 16,
}  # fmt: skip


@dataclass(frozen=True)
class OnnxFile:
    """What was written.

    Args:
        path: of the graph.
        inputs: names, in the order of the variant's placeholders; without the initialisers.
        outputs: the model's, then the slots.
        weights_bytes: of its initialisers.
    """

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights_bytes: int


def reasons_against(variant: Variant) -> tuple[str, ...]:
    """Why a variant cannot be written; none where it can."""
    return graph_reasons(variant.module)


def graph_reasons(gm: fx.GraphModule) -> tuple[str, ...]:
    """Why a graph cannot be written; none where it can."""
    nodes = [node for module in (gm, *branches(gm)) for node in module.graph.nodes]
    calls = [node for node in nodes if node.op == "call_function"]
    return (
        *refusals(node for node in calls if node.target not in (COND, operator.getitem)),
        *(f"{dtype} has no ONNX type" for dtype in sorted(map(str, dtypes_of(gm) - {*_TYPES}))),
    )


def write_onnx(
    variant: Variant, held: Mapping[str, Tensor], path: Path, weights: Weights
) -> OnnxFile:
    """Write a variant.

    Args:
        variant: exact, plain or conditional.
        held: by placeholder the weights and constants that become initialisers.
        path: of the graph; in the folder of `weights`.
        weights: where initialisers of any size go.

    Raises:
        LowerError: onnx is not installed, or an operator cannot be written.
    """
    said = f"variant {variant.key.name!r}"
    return write_graph(said, variant.module, held, variant_outputs(variant), path, weights)


def write_prologue(
    prologue: Prologue, held: Mapping[str, Tensor], path: Path, weights: Weights
) -> OnnxFile:
    """Write a prologue; see `write_onnx`."""
    outputs = tuple(f"prologue_{name}" for name in prologue.names)
    return write_graph("the prologue", prologue.module, held, outputs, path, weights)


def write_graph(
    said: str,
    module: fx.GraphModule,
    held: Mapping[str, Tensor],
    outputs: Sequence[str],
    path: Path,
    weights: Weights,
) -> OnnxFile:
    """Write a graph; see `write_onnx`.

    Args:
        said: what it is, for messages.
        module: the graph.
        held: by placeholder what becomes initialisers; others are inputs.
        outputs: a name for each value that it returns.
        path: of the file.
        weights: where initialisers of any size go.
    """
    try:
        import onnx
    except ImportError as error:
        raise LowerError("ONNX files need the package onnx; install turbo4d[cpu].") from error
    if reasons := graph_reasons(module):
        raise LowerError(f"{said} is no ONNX graph: {'; '.join(reasons)}.")
    model = _Model(onnx, held, weights)
    graph = module.graph
    placeholders = {node.name: node for node in graph.find_nodes(op="placeholder")}
    inputs: list[str] = []
    scope = _Scope(model, module, {}, "")
    for name, node in placeholders.items():
        scope.names[node] = name
        if name in held:
            model.hold(name, held[name])
        else:
            inputs.append(name)
    results = returned(graph)
    scope.write(dict(zip(results, outputs, strict=True)))
    proto = onnx.helper.make_graph(
        scope.nodes,
        "turbo4d",
        [model.described(name, placeholders[name].meta["val"]) for name in inputs],
        [model.described(n, value.meta["val"]) for n, value in zip(outputs, results, strict=True)],
        initializer=model.initialisers,
    )
    version = BFLOAT16_OPSET if torch.bfloat16 in dtypes_of(module) else OPSET
    opset = onnx.helper.make_opsetid("", version)
    whole = onnx.helper.make_model(
        proto, opset_imports=[opset], ir_version=IR_VERSION, producer_name="turbo4d"
    )
    path.write_bytes(whole.SerializeToString())
    used = (held[name] for name in placeholders if name in held)
    size_bytes = sum(value.numel() * value.element_size() for value in used)
    return OnnxFile(path, tuple(inputs), tuple(outputs), size_bytes)


def dtypes_of(gm: fx.GraphModule) -> set[torch.dtype]:
    """Of all values of a graph and its branches."""
    found: set[torch.dtype] = set()
    for module in (gm, *branches(gm)):
        for node in module.graph.nodes:
            value: Any = node.meta.get("val")
            parts: Any = (value,) if isinstance(value, Tensor) else value or ()
            found |= {part.dtype for part in parts}
    return found


def variant_outputs(variant: Variant) -> tuple[str, ...]:
    """What a variant's results are called: the model's outputs, then the slots it writes."""
    seen: dict[str, int] = {}
    names = [f"output_{at}" for at in range(variant.outputs)]
    for region in variant.writes:
        names.append(f"new_{slot_name(region, seen.get(region, 0))}")
        seen[region] = seen.get(region, 0) + 1
    return tuple(names)


class _Model:
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
            name=name, data_type=_TYPES[value.dtype], dims=value.shape,
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
        return self.onnx.helper.make_tensor_value_info(name, _TYPES[value.dtype], shape)

    def _inline(self, name: str, value: Tensor) -> Any:
        kind = _TYPES[value.dtype]
        return self.onnx.TensorProto(
            name=name, data_type=kind, dims=value.shape, raw_data=raw(value)
        )


class _Scope:
    """One graph being written: the whole, or a branch, which reads from the scope around it.

    Args:
        model: that it belongs to.
        module: with the graph and its branches.
        names: of the values known so far.
        prefix: of the names of its own; no two scopes have one.
    """

    def __init__(
        self, model: _Model, module: fx.GraphModule, names: dict[fx.Node, str], prefix: str
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
            key: _TYPES[value] if isinstance(value, torch.dtype) else value
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
        scope = _Scope(self._model, module, names, f"{target}.")
        results = returned(module.graph)
        outputs = {value: f"{target}.{value.name}" for value in results}
        scope.write(outputs)
        infos = [self._model.described(outputs[value], value.meta["val"]) for value in results]
        return self._model.onnx.helper.make_graph(scope.nodes, target, [], infos)
