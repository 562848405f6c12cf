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

from .onnx_rules import refusals
from .onnx_rules.blame import EAGER
from .onnx_scope import TYPES, Model, Scope
from .onnx_weights import Weights

if TYPE_CHECKING:
    from turbo4d.compiler.prologue import Prologue
    from turbo4d.compiler.specialise import Variant

OPSET, IR_VERSION = 20, 10
BFLOAT16_OPSET = 22
"""The first in which every operator takes bfloat16; a file without it keeps the older, which more
engines read."""


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


def graph_reasons(gm: fx.GraphModule, otherwise: str = EAGER) -> tuple[str, ...]:
    """Why a graph cannot be written; none where it can.

    Args:
        gm: the graph.
        otherwise: what to do about a call that no pass removes.
    """
    nodes = [node for module in (gm, *branches(gm)) for node in module.graph.nodes]
    calls = [node for node in nodes if node.op == "call_function"]
    return (
        *refusals((n for n in calls if n.target not in (COND, operator.getitem)), otherwise),
        *(f"{dtype} has no ONNX type" for dtype in sorted(map(str, dtypes_of(gm) - {*TYPES}))),
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
    otherwise: str = EAGER,
) -> OnnxFile:
    """Write a graph; see `write_onnx`.

    Args:
        said: what it is, for messages.
        module: the graph.
        held: by placeholder what becomes initialisers; others are inputs.
        outputs: a name for each value that it returns.
        path: of the file.
        weights: where initialisers of any size go.
        otherwise: what to do about a call that has no ONNX form and that no pass removes.
    """
    try:
        import onnx
    except ImportError as error:
        raise LowerError("ONNX files need the package onnx; install turbo4d[cpu].") from error
    if reasons := graph_reasons(module, otherwise):
        raise LowerError(f"{said} is no ONNX graph: {'; '.join(reasons)}.")
    model = Model(onnx, held, weights)
    graph = module.graph
    placeholders = {node.name: node for node in graph.find_nodes(op="placeholder")}
    inputs: list[str] = []
    scope = Scope(model, module, {}, "")
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
