"""fold-single-key-attention: attention over one key is that key's value, whatever the query.

    rewrite:  %y = sdpa(%q, %k, %v)                   # %k, %v: [G, N, 1, D]
       ->     %y = permute(clone(expand(permute(%v))))   # in attention's memory layout

Requires  one key, no mask, no dropout, as many heads in the values as in the queries.
Ensures   the attention is gone, and with it the projections and norms that only it used.
Error     none, to the bit: softmax over one key is exactly 1. (Where the score itself is infinite
          or not a number, attention would give NaN and this does not.)
Source    SV4D's cross-attentions: one image embedding a frame, one reference latent a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx

from .base import Pass, PassReport, aten, emit, replace

SDPA = aten.scaled_dot_product_attention.default
_OPTIONS = ("attn_mask", "dropout_p")


@dataclass(frozen=True)
class FoldSingleKeyAttention(Pass):
    """Replaces every attention over one key by its value, expanded to the queries."""

    name: ClassVar[str] = "fold-single-key-attention"

    def rewrite(self, gm: fx.GraphModule, report: PassReport) -> None:
        """Fold each attention that `_why_not` finds nothing against."""
        for site in gm.graph.find_nodes(op="call_function", target=SDPA):
            if reason := _why_not(site):
                report.skip(site, reason)
                continue
            with gm.graph.inserting_before(site):
                folded = _expanded(gm.graph, site)
            replace(site, folded)
            report.rewrote(site, f"%{folded.name}")


def _why_not(site: fx.Node) -> str | None:
    query, key, value = (shape_of(argument) for argument in site.args[:3])
    given: dict[str, Any] = dict(zip(_OPTIONS, site.args[3:], strict=False)) | dict(site.kwargs)
    if key[-2] != 1:
        return f"{key[-2]} keys"
    if given.get("attn_mask") is not None:
        return "a mask, which may hide the only key"
    if given.get("dropout_p"):
        return f"dropout {given['dropout_p']}"
    if query[:-2] != value[:-2]:
        groups = list(query[:-2]), list(value[:-2])
        return f"groups and heads are {groups[0]} in the queries, {groups[1]} in the values"
    return None


def _expanded(graph: fx.Graph, site: fx.Node) -> fx.Node:
    """Values [.., N, 1, D] as [.., N, Q, D], laid out as attention lays out its result."""
    wanted = site.meta["val"]
    rank = wanted.dim()
    # Attention's layout decides whether the reshape after it copies, and so the linear's kernel.
    order = sorted(range(rank), key=lambda axis: (-wanted.stride(axis), axis))
    back = [order.index(axis) for axis in range(rank)]
    value: Any = site.args[2]
    if order == list(range(rank)):
        expanded = emit(graph, aten.expand.default, value, list(wanted.shape))
        return emit(graph, aten.clone.default, expanded, memory_format=torch.contiguous_format)
    turned = emit(graph, aten.permute.default, value, order)
    shape = [wanted.shape[axis] for axis in order]
    expanded = emit(graph, aten.expand.default, turned, shape)
    dense = emit(graph, aten.clone.default, expanded, memory_format=torch.contiguous_format)
    return emit(graph, aten.permute.default, dense, back)


def shape_of(node: Any) -> tuple[int, ...]:
    """Shape of a node's value."""
    return tuple(node.meta["val"].shape)
