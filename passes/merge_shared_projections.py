"""merge-shared-projections: products of one value with several weights become one product.

    rewrite:  %q = linear(%x, %wq), %k = linear(%x, %wk), %v = linear(%x, %wv)
       ->     %all = linear(%x, cat(%wq, %wk, %wv))      # the prologue's: weights alone
              %q, %k, %v = slices of %all

Requires  linears, or convolutions of one group that agree in kernel and options; all with a bias or
          all without; their weights placeholders; their input dependent on `varying`.
Ensures   one product for each such set of them.
Error     rounding: a product of other sizes may be summed in another order.
Cost      the joined weights are held beside the module's own for a session (nano: 2.1 MB in
          float32). Off by default: no gain was shown. On 2 threads of a shared machine, without
          and with it, medians of paired steps: tiny 1.03 (float32), 1.07 (bfloat16), nano 0.85
          (float32), where single steps spread over a factor of 10 (tiny) and 2 (nano).
Source    fused q, k, v projections, as in most attention libraries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import fx

from .base import Pass, PassReport, aten, become, emit

_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
_GROUPS = 6  # position of the argument in all of them


@dataclass(frozen=True)
class MergeSharedProjections(Pass):
    """Merges the products that read one value.

    Args:
        varying: placeholders that change from step to step; products of anything else are left
            alone, since they are computed once.
    """

    name: ClassVar[str] = "merge-shared-projections"
    varying: tuple[str, ...]

    def rewrite(self, gm: fx.GraphModule, report: PassReport) -> None:
        """Merge each set of products that agree in all but the weight."""
        changing: set[fx.Node] = set()
        sets: dict[Any, list[fx.Node]] = {}
        for node in gm.graph.nodes:
            if node.name in self.varying or not changing.isdisjoint(node.all_input_nodes):
                changing.add(node)
            if node.target not in (*_CONVOLUTIONS, aten.linear.default):
                continue
            if node.args[0] in changing:
                sets.setdefault(_kind(node), []).append(node)
        for products in sets.values():
            if len(products) > 1:
                _merge(products, report)


def _kind(node: fx.Node) -> Any:
    """Equal for products that can be merged."""
    source, weight, *rest = node.args
    kernel = tuple(weight.meta["val"].shape[1:])  # type: ignore[union-attr]
    options = tuple(tuple(one) if isinstance(one, Sequence) else one for one in rest[1:])
    biased = bool(rest) and rest[0] is not None
    return node.target, source, kernel, biased, options


def _merge(products: list[fx.Node], report: PassReport) -> None:
    mergeable: list[fx.Node] = []
    for node in products:
        if reason := _why_not(node):
            report.skip(node, reason)
        else:
            mergeable.append(node)
    if len(mergeable) < 2:
        return
    first = mergeable[0]
    graph = first.graph
    target: Any = first.target
    with graph.inserting_before(first):
        joined: list[Any] = [first.args[0]]
        for at in (1, 2):
            parts = [node.args[at] for node in mergeable if len(node.args) > at]
            if parts and parts[0] is not None:
                joined.append(emit(graph, aten.cat.default, parts, 0))
            elif parts:
                joined.append(None)
        product = emit(graph, target, *joined, *first.args[3:])
    axis = 1 if first.target in _CONVOLUTIONS else product.meta["val"].dim() - 1
    start = 0
    for node in mergeable:
        stop = start + int(node.meta["val"].shape[axis])
        become(node, aten.slice.Tensor, product, axis, start, stop, 1)
        report.rewrote(node, f"channels {start}:{stop} of %{product.name}")
        start = stop


def _why_not(node: fx.Node) -> str | None:
    if len(node.args) > _GROUPS and node.args[_GROUPS] != 1:
        return f"it has {node.args[_GROUPS]} groups"
    if any(isinstance(p, fx.Node) and p.op != "placeholder" for p in node.args[1:3]):
        return "its weight is computed"
    return None
