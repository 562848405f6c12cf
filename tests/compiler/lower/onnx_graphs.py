"""Graphs of a few calls, as variants, written to ONNX files."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from turbo4d.compiler.lower.onnx_export import OnnxFile, write_onnx
from turbo4d.compiler.lower.onnx_weights import WeightFile
from turbo4d.compiler.specialise import Variant
from turbo4d.passes.base import emit
from turbo4d.runtime.variant_key import VariantKey

KEY = VariantKey((), (), exact=False)


def x(*sides: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers from 0.1 to 1.1, the same for a shape."""
    made = torch.rand(sides, generator=torch.Generator().manual_seed(sum(sides))) + 0.1
    return made.to(dtype)


def variant_of(module: fx.GraphModule, inputs: int, outputs: int = 1) -> Variant:
    return Variant(KEY, module, tuple(range(inputs)), (), (), (), outputs, ())


def graph_of(
    target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Variant, list[Tensor]]:
    """A graph of one call, its tensors placeholders; several results are several outputs."""
    graph = fx.Graph()
    given: list[Tensor] = []

    def place(value: Any) -> Any:
        if isinstance(value, list) and any(isinstance(part, Tensor) for part in value):
            return [place(part) for part in value]
        if not isinstance(value, Tensor):
            return value
        node = graph.placeholder(f"i_{len(given)}")
        node.meta["val"] = value
        given.append(value)
        return node

    placed = [place(argument) for argument in args]
    call = emit(graph, target, *placed, **{key: place(value) for key, value in kwargs.items()})
    results = [call]
    if not isinstance(call.meta["val"], Tensor):
        count = len(call.meta["val"])
        results = [emit(graph, operator.getitem, call, at) for at in range(count)]
    graph.output(tuple(results))
    return variant_of(fx.GraphModule(nn.Module(), graph), len(given), len(results)), given


def write(variant: Variant, folder: Path, held: Mapping[str, Tensor] | None = None) -> OnnxFile:
    weights = WeightFile(folder / "weights.bin")
    return write_onnx(variant, held or {}, folder / "graph.onnx", weights)
