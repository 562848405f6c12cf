"""The captured graph: one functional ATen graph, its table of inputs, and its fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from turbo4d.compiler.show import fingerprint_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, fx

Kind = Literal["weight", "constant", "input"]


@dataclass(frozen=True)
class Placeholder:
    """One row of the table of inputs: what a placeholder of the graph holds.

    Args:
        name: of the placeholder node.
        kind: "weight" for a parameter or buffer, "constant" for a tensor the model holds outside
            its state, "input" for an argument of the call.
        target: the weight's name in the state dict, the constant's name, or the input's path.
        shape: of the tensor.
        dtype: of the tensor.
    """

    name: str
    kind: Kind
    target: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Capture:
    """A denoiser as one pure graph; the same through both doors.

    The placeholders stand in a canonical order: weights by name, constants by name, inputs by
    path. Node names are renumbered in the order of the graph, so that a region or a plan can name
    a node and mean the same one in every copy.

    Args:
        module: the graph; flat placeholders in, a flat tuple out.
        table: one row per placeholder, in the graph's order.
        constants: the value of each row of kind "constant", by target.
        door: "compile" for torch.compile, "export" for torch.export.
        order: for the compile door, the position of each row among the flat arguments that
            torch.compile calls with, -1 for one that is only in `constants`; None for the export
            door.
        numbers: for the compile door, the positions of the flat arguments that are Python integers,
            which the graph takes as tensors without axes.
        weights: for the export door, the module's own tensors by name: the same storage.
        in_spec: for the export door, the structure of (args, kwargs); else None.
        out_spec: for the export door, the structure of the result; else None.
        out_literals: for the export door, the leaves of the result that are no tensors, by
            position; the graph returns the others.
        input_paths: for the export door, the path of every leaf of (args, kwargs), in its order.
        hints: the module's `turbo4d_geometry`, where it could be read.
    """

    module: fx.GraphModule
    table: tuple[Placeholder, ...]
    constants: Mapping[str, Tensor]
    door: Literal["compile", "export"]
    order: tuple[int, ...] | None = None
    numbers: tuple[int, ...] = ()
    weights: Mapping[str, Tensor] = field(default_factory=dict[str, "Tensor"])
    in_spec: Any = None
    out_spec: Any = None
    out_literals: Mapping[int, object] = field(default_factory=dict[int, object])
    input_paths: tuple[str, ...] = ()
    hints: Mapping[str, int | str] = field(default_factory=dict[str, int | str])

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the canonical text; equal through both doors, and on every machine."""
        return fingerprint_of(self.module.graph, self.table)

    @property
    def inputs(self) -> tuple[Placeholder, ...]:
        """The rows of kind "input"."""
        return tuple(row for row in self.table if row.kind == "input")

    @property
    def weights_bytes(self) -> int:
        """Bytes of all weights, each once."""
        rows = (row for row in self.table if row.kind == "weight")
        total = 0
        for row in rows:
            size = row.dtype.itemsize
            for side in row.shape:
                size *= side
            total += size
        return total
