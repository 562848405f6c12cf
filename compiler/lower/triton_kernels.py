"""triton-kernels: a variant's graph operator by operator, with our Triton kernels where they fit.

Attention over few tokens, as of views and frames, is one call from its norm to its sum
(`runtime/token_attention.py`), and what goes along with it is computed where tokens lie, so that
nothing is copied into groups. A gated feed-forward is one call from its norm to its sum
(`runtime/gated_feed_forward.py`). Where the projections do not fit, the attention alone is one call
that reads each token at its stride (`runtime/tiny_attention.py`). All else is torch's. It must be
asked for: no configuration of the kernels was timed on a GPU yet.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from turbo4d.passes import PassReport
from turbo4d.passes.base import emit, erase_unused
from turbo4d.passes.base import replace as use_instead
from turbo4d.runtime.log import say
from turbo4d.runtime.tiny_attention import MAX_TOKENS, OPERATOR, missing

from .eager import EagerEngine
from .fuse_attention import fuse_attention
from .fuse_feed_forwards import fuse_feed_forwards
from .ungroup import ungroup

if TYPE_CHECKING:
    from turbo4d.compiler.specialise import Variant

aten = torch.ops.aten
_KEYWORDS = {"scale"}


class TritonKernelsLowering:
    """Takes every variant on CUDA, where the package triton is there."""

    name = "triton-kernels"

    def supports(self, variant: Variant) -> tuple[str, ...]:
        """What is missing: CUDA, or the package."""
        given = variant.module.graph.find_nodes(op="placeholder")
        devices = sorted({node.meta["val"].device.type for node in given})
        reasons = (missing(torch.device(device)) for device in devices)
        return tuple(reason for reason in reasons if reason is not None)

    def compile(self, variant: Variant) -> EagerEngine:
        """Puts the kernels into a graph of its own."""
        graph = copy.deepcopy(variant.module.graph)
        put_kernels(graph)
        return EagerEngine(replace(variant, module=fx.GraphModule(variant.module, graph)))


def put_kernels(graph: fx.Graph) -> PassReport:
    """Puts in whichever kernel fits; the log says of each place which, or why none.

    Args:
        graph: canonical; changed in place.
    """
    fed = fuse_feed_forwards(graph)
    report = fuse_attention(graph)
    ungrouped = ungroup(graph) if report.rewritten else 0
    alone = use_tiny_attention(graph)
    told = f"{len(report.rewritten)} attentions from norm to sum, {ungrouped} without copies"
    say(1, f"triton-kernels: {fed} feed-forwards and {told}, {alone} attentions alone")
    for place in report.skipped:
        say(2, f"triton-kernels: {place.place} is not fused: {place.reason}")
    return report


def use_tiny_attention(graph: fx.Graph) -> int:
    """Replaces every attention over few tokens of its own; gives how many there were.

    Args:
        graph: canonical; changed in place.
    """
    found = graph.find_nodes(op="call_function", target=aten.scaled_dot_product_attention.default)
    fitting = [node for node in found if _fits(node)]
    for node in fitting:
        query: Any = node.args[0]
        scale = node.kwargs.get("scale")
        width = query.meta["val"].shape[-1]
        with graph.inserting_before(node), torch.no_grad():
            given = [_grouped(graph, operand) for operand in node.args[:3]]
            factor = 1 / math.sqrt(width) if scale is None else scale
            attended = emit(graph, OPERATOR, *given, factor)
            flat = emit(graph, aten.squeeze.dim, attended, 0)
            heads = emit(graph, aten.transpose.int, flat, 1, 2)
            use_instead(node, heads)
    if fitting:
        erase_unused(graph)
        graph.lint()
    return len(fitting)


def _grouped(graph: fx.Graph, operand: Any) -> fx.Node:
    """[groups, heads, tokens, head] as the kernel's [1, groups, tokens, heads, head], uncopied."""
    return emit(graph, aten.unsqueeze.default, emit(graph, aten.transpose.int, operand, 1, 2), 0)


def _fits(node: fx.Node) -> bool:
    """Whether it attends over 2 to `MAX_TOKENS` tokens, without mask, dropout or order."""
    values: list[Any] = [operand.meta["val"] for operand in node.all_input_nodes]
    operands: Any = node.args[:3]
    shapes = {tuple(operand.meta["val"].shape) for operand in operands}
    if len(node.args) > 3 or {*node.kwargs} - _KEYWORDS or len(shapes) > 1:
        return False
    [shape] = shapes
    real = all(isinstance(value, Tensor) and value.is_floating_point() for value in values)
    return real and len(shape) == 4 and 1 < shape[2] <= MAX_TOKENS
