"""inductor: a variant as a list of compiled segments, shared with every other variant.

Each segment is compiled once, wherever it appears (see `compiler/segments.py`), so a variant that
reuses what another computes costs next to nothing to build. Inductor fuses and reorders sums: the
results agree with eager execution to rounding, not to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx
from turbo4d.passes.base import returned

from .compat import inductor_lacks
from .eager import picker
from .native import fused
from .program import Program, Strides, form_of, laid_out
from .row_kernels import row_kernels_lack
from .segment_library import LIBRARY, SegmentLibrary

if TYPE_CHECKING:
    from turbo4d.compiler.prologue import Prologue
    from turbo4d.compiler.specialise import Variant
    from turbo4d.runtime.plan import VariantKey


class InductorEngine:
    """A variant, lowered.

    Args:
        variant: whose module is left as it is.
        library: of compiled segments.

    Raises:
        LowerError: a segment cannot be compiled.
    """

    def __init__(self, variant: Variant, library: SegmentLibrary) -> None:
        self.key: VariantKey = variant.key
        self.reads = variant.reads
        self.writes = variant.writes
        self._outputs = variant.outputs
        self._pick = picker(variant.arg_indices)
        self._pick_prologue = picker(variant.prologue_indices)
        graph, cuts = _fused(variant)
        given, results = _values(graph)
        first = len(given) - len(variant.reads)
        layouts = [*map(Tensor.stride, given[:first]), *map(slot_strides, given[first:])]
        self._layouts = layouts[len(variant.arg_indices) :]
        self.program = Program(
            graph,
            inputs=[*map(form_of, given, layouts)],
            results=[
                *map(Tensor.stride, results[: variant.outputs]),
                *map(slot_strides, results[variant.outputs :]),
            ],
            cuts=cuts,
            library=library,
            label=variant.key.name,
        )

    def __call__(
        self, args: Sequence[Tensor], prologue: Sequence[Tensor], slots_in: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Run the compiled segments."""
        held = map(laid_out, (*self._pick_prologue(prologue), *slots_in), self._layouts)
        results = self.program((*self._pick(args), *held))
        return results[: self._outputs], results[self._outputs :]


class InductorPrologue:
    """A prologue, lowered.

    Args:
        prologue: whose module is left as it is.
        library: of compiled segments.

    Raises:
        LowerError: a segment cannot be compiled.
    """

    def __init__(self, prologue: Prologue, library: SegmentLibrary) -> None:
        self.arg_indices = prologue.arg_indices
        self._pick = picker(prologue.arg_indices)
        given, results = _values(prologue.module.graph)
        self.program = Program(
            prologue.module.graph,
            inputs=[*map(form_of, given)],
            results=[*map(Tensor.stride, results)],
            cuts=(),
            library=library,
            label="prologue",
        )

    def __call__(self, args: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The values that variants take, without gradients."""
        return tuple(self.program(self._pick(args)))


class InductorLowering:
    """Takes every variant on a device that Inductor writes code for.

    Args:
        library: of compiled segments; all lowerings of a process share one.
    """

    name = "inductor"

    def __init__(self, library: SegmentLibrary = LIBRARY) -> None:
        self.library = library

    def supports(self, variant: Variant) -> tuple[str, ...]:
        """What is missing for the devices that the variant's values are on."""
        if variant.flags:
            return (
                "its segments hold no branches; choose lowering 'eager' or leave conditional off",
            )
        given, _ = _values(variant.module.graph)
        devices = sorted({value.device.type for value in given})
        reasons = (inductor_lacks(torch.device(device)) for device in devices)
        return tuple(reason for reason in reasons if reason is not None)

    def compile(self, variant: Variant) -> InductorEngine:
        """Compile the segments that no variant had so far."""
        return InductorEngine(variant, self.library)

    def compile_prologue(self, prologue: Prologue) -> InductorPrologue:
        """Likewise, of a prologue."""
        return InductorPrologue(prologue, self.library)


def slot_strides(value: Tensor) -> Strides:
    """The layout of a slot, which whoever writes it and whoever reads it must agree on.

    On a CPU Inductor keeps images channels last, and slots with them, so that a value has the same
    layout whether a segment gave it or a slot holds it; elsewhere it is the graph's.
    """
    if value.device.type == "cpu" and value.dim() == 4:
        return torch.empty_like(value, memory_format=torch.channels_last).stride()
    return value.stride()


def _fused(variant: Variant) -> tuple[fx.Graph, frozenset[str]]:
    """A variant's graph, what the row kernels compute being one call each, and where to cut it."""
    if row_kernels_lack() is not None:
        return variant.module.graph, variant.cuts
    graph, found = fused(variant)
    return graph, variant.cuts | found.stored


def _values(graph: fx.Graph) -> tuple[list[Tensor], list[Tensor]]:
    """What a graph takes and what it gives, without data."""
    given = [node.meta["val"] for node in graph.nodes if node.op == "placeholder"]
    return given, [node.meta["val"] for node in returned(graph)]
