"""native: a variant's graph operator by operator, with our own kernels where they fit.

Feed-forwards, attention within short sequences and convolutions over frames are single calls of
C++ that is compiled once for a machine, in seconds (`row_kernels`); all else is torch's. Nothing is
compiled for a model, and weights are the module's own. Results agree with eager to rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from turbo4d.compiler.compat import late_module
from turbo4d.compiler.show import dtype_text
from turbo4d.passes.base import emit, returned

from .compat import inductor_lacks
from .eager import EagerEngine
from .fuse_rows import Fused, fuse_rows
from .places import aten, value_of
from .row_kernels import library, row_kernels_lack

if TYPE_CHECKING:
    from turbo4d.compiler.specialise import Variant


class NativeLowering:
    """Takes every variant on the CPU of a machine with a C++ compiler."""

    name = "native"

    def lacks(self) -> tuple[str, ...]:
        """What the machine misses, whatever the variant: a compiler, or the switch."""
        reasons = (inductor_lacks(torch.device("cpu")), row_kernels_lack())
        return tuple(reason for reason in reasons if reason is not None)

    def supports(self, variant: Variant) -> tuple[str, ...]:
        """What is missing: the CPU, a compiler, or the switch; or that it has branches."""
        return self.refuses(variant) or self.lacks()

    def refuses(self, variant: Variant) -> tuple[str, ...]:
        """Why a variant is not taken on any machine."""
        if variant.flags:
            return ("its kernels stand in no branches; leave conditional off",)
        given = [value_of(node) for node in variant.module.graph.find_nodes(op="placeholder")]
        devices = sorted({value.device.type for value in given} - {"cpu"})
        if devices:
            return (f"its kernels run on a CPU, and values are on {devices[0]!r}",)
        others = {value.dtype for value in given if value.is_floating_point()} - {torch.float32}
        if others:
            return (f"its kernels take float32, and values are {min(map(dtype_text, others))}",)
        return ()

    def compile(self, variant: Variant) -> EagerEngine:
        """Fuse what the kernels take, in a graph of its own."""
        graph, found = fused(variant)
        if found.places:
            channels_last(graph)
        own = map(value_of, returned(variant.module.graph)[: variant.outputs])
        dense(graph, [value.is_contiguous() for value in own])  # a slot, too, may be otherwise
        module = late_module(variant.module, graph)
        return EagerEngine(replace(variant, module=module))


def fused(variant: Variant) -> tuple[fx.Graph, Fused]:
    """A copy of a variant's graph, what the kernels compute being one call each.

    Raises:
        LowerError: there is such a call, and the kernels cannot be compiled.
    """
    graph = copy.deepcopy(variant.module.graph)
    found = fuse_rows(graph, variant.cuts)
    if found.places:
        library()
    return graph, found


def channels_last(graph: fx.Graph) -> None:
    """Let convolutions of images take and give their channels last, as the kernels do.

    Args:
        graph: of a variant, changed in place: in it strides are no longer those of `meta["val"]`.
    """
    for node in graph.find_nodes(op="call_function", target=aten.conv2d.default):
        node.update_arg(0, _in_format(node.args[0], torch.channels_last, node))


def dense(graph: fx.Graph, wanted: Sequence[bool]) -> None:
    """Give a graph's first results with their axes in order again, where that is wanted."""
    results: list[fx.Node] = [*returned(graph)]
    last = graph.output_node()
    for place, needs in enumerate(wanted):
        if needs:
            results[place] = _in_format(results[place], torch.contiguous_format, last)
    last.args = (tuple(results),)


def _in_format(node: Any, layout: torch.memory_format, before: fx.Node) -> fx.Node:
    with before.graph.inserting_before(before):
        return emit(before.graph, aten.contiguous.default, node, memory_format=layout)
