"""part: one graph of a bundle, and what each tensor that it takes or gives is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx
from turbo4d.compiler.analysis import Analysis
from turbo4d.compiler.flops import count_flops
from turbo4d.compiler.ir import Placeholder
from turbo4d.compiler.lower.onnx_export import variant_outputs
from turbo4d.compiler.prologue import Prologue
from turbo4d.compiler.specialise import Variant
from turbo4d.runtime.bundle.dtypes import name_of
from turbo4d.runtime.bundle.manifest import TensorKind, TensorRow

PROLOGUE, CONDITIONAL = "prologue", "conditional"


@dataclass(frozen=True)
class Part:
    """One graph of a bundle.

    Args:
        name: of its engine.
        module: the graph.
        takes: its placeholders in order, without weights and constants.
        gives: what it returns, in order.
        held: by placeholder the weights and constants it reads, by their name in the bundle.
        flops: of one call.
    """

    name: str
    module: fx.GraphModule
    takes: tuple[TensorRow, ...]
    gives: tuple[TensorRow, ...]
    held: Mapping[str, str]
    flops: int


class PartTable:
    """Names what graphs take and give.

    Args:
        analysis: whose capture has the table of placeholders.
    """

    def __init__(self, analysis: Analysis) -> None:
        capture = analysis.capture
        self._table = capture.table
        self._values = {"weight": capture.weights, "constant": capture.constants}
        weights = {row.target for row in capture.table if row.kind == "weight"}
        self._names = {
            row.name: f"constant:{row.target}"
            if row.kind == "constant" and row.target in weights
            else row.target
            for row in capture.table
        }

    def part(self, name: str, variant: Variant) -> Part:
        """The graph of a variant."""
        nodes = [*variant.module.graph.find_nodes(op="placeholder")]
        rows = [self._table[at] for at in variant.arg_indices]
        others: list[tuple[TensorKind, str]] = [
            *(("prologue", str(at)) for at in variant.prologue_indices),
            *(("slot", slot) for slot in variant.reads),
            *(("flag", region) for region in variant.flags),
        ]
        takes, held = self._taken(nodes, rows, others)
        sources: list[tuple[TensorKind, str]] = [
            *(("output", str(at)) for at in range(variant.outputs)),
            *(("slot", slot) for slot in variant.writes),
        ]
        given = zip(variant_outputs(variant), sources, _returned(variant.module), strict=True)
        gives = tuple(_tensor_row(text, *source, value) for text, source, value in given)
        flops = sum(count_flops(variant.module.graph).values())
        return Part(name, variant.module, takes, gives, held, flops)

    def prologue_part(self, prologue: Prologue) -> Part:
        """The graph of a prologue."""
        nodes = [*prologue.module.graph.find_nodes(op="placeholder")]
        takes, held = self._taken(nodes, [self._table[at] for at in prologue.arg_indices], ())
        gives = tuple(
            _tensor_row(f"prologue_{name}", "output", str(at), value)
            for at, (name, value) in enumerate(
                zip(prologue.names, _returned(prologue.module), strict=True)
            )
        )
        return Part(PROLOGUE, prologue.module, takes, gives, held, prologue.flops)

    def used(self, graphs: Sequence[Part]) -> dict[str, Tensor]:
        """What graphs read of the model's weights and constants, by name, in the table's order."""
        read = {placeholder for part in graphs for placeholder in part.held}
        rows = (row for row in self._table if row.name in read)
        return {self._names[row.name]: self._values[row.kind][row.target] for row in rows}

    def _taken(
        self,
        nodes: Sequence[fx.Node],
        rows: Sequence[Placeholder],
        others: Sequence[tuple[TensorKind, str]],
    ) -> tuple[tuple[TensorRow, ...], dict[str, str]]:
        takes: list[TensorRow] = []
        held: dict[str, str] = {}
        for node, row in zip(nodes, rows, strict=False):
            if row.kind == "input":
                takes.append(_tensor_row(node.name, "input", row.target, node.meta["val"]))
            else:
                held[node.name] = self._names[row.name]
        for node, source in zip(nodes[len(rows) :], others, strict=True):
            takes.append(_tensor_row(node.name, *source, node.meta["val"]))
        return tuple(takes), held


def _tensor_row(name: str, kind: TensorKind, source: str, value: Tensor) -> TensorRow:
    shape = tuple(int(side) for side in value.shape)
    return TensorRow(name, kind, source, shape, name_of(value.dtype))


def _returned(module: fx.GraphModule) -> list[Tensor]:
    leaves: Any = module.graph.output_node().args[0]
    return [leaf.meta["val"] for leaf in leaves]
