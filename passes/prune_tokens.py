"""prune-tokens: compute a region for its most relevant tokens, and take the rest from its slot.

    rewrite:  %exit = <the region>(%entry, ...)
       ->     %chosen = sort(sort(%slot_<source>_relevance, descending)[:K])
              %kept = <the region>(index_select(%entry, %chosen), ...)
              %exit = index_copy(add(%entry, %slot_<region>), %chosen, %kept)
       or     %value = index_copy(%slot_<region>, %chosen, %kept)    # exit = add(%entry, %value)

Requires  `value` depends on the entry by calls that keep tokens apart; attention may run over them
          with its queries, whose keys and values are then computed of all tokens. The relevance
          is [rows, N], larger where a token matters more.
Ensures   as many tokens of each image or group as `kept` says are computed, the same of all images
          that one sequence runs over; of equal relevance the first. Shapes are static. With
          `kept` of N every number is that of the region computed. Attentions keep their names.
Error     of tokens that are not kept, the drift since the slot was written; of kept ones none in a
          region whose sequences are whole groups. Of spatial attention, none within the region.
Source    ToCa (Zou et al. 2024) and token merging (Bolya & Hoffman 2023) choose tokens inside
          modules, at run time; here the choice is part of the graph, and its size of the variant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx
from torch.fx.node import map_arg

from .base import Pass, PassError, PassReport, add_slot, aten, become, derive, emit
from .tokens import MODULES
from .tokens.alignment import shape_of
from .tokens.choice import choose, put, take
from .tokens.layout import TokensMixedError, kept_shape, length, read_layout, tokens_of
from .tokens.rules import Carried
from .tokens.trace import Trace, trace


@dataclass(frozen=True)
class PruneTokens(Pass):
    """Prunes one region.

    Args:
        region: its name, for the report.
        entry: the node through which tokens come in.
        value: the node that the slot stands for.
        slot: name of the placeholder to add.
        difference: whether the slot holds what `value` is more than the entry, else `value`.
        source: the region whose relevance it is, for the report.
        relevance: name of the placeholder of relevance; added where the graph has none yet.
        kept: how many tokens.
        layout: of the entry, see `tokens.layout`.
        rows: of the relevance, as one dimension of a layout.
        pooled: the images that a sequence runs over, likewise.
    """

    name: ClassVar[str] = "prune-tokens"
    shared: ClassVar[tuple[str, ...]] = MODULES
    region: str
    entry: str
    value: str
    slot: str
    difference: bool
    source: str
    relevance: str
    kept: int
    layout: tuple[str, ...]
    rows: str
    pooled: str

    def rewrite(self, gm: fx.GraphModule, report: PassReport) -> None:
        """Compute the kept tokens, and put them over the slot's."""
        entry = self.find(gm.graph, self.entry, self.region)
        value = self.find(gm.graph, self.value, self.region)
        if any(node.name == self.slot for node in gm.graph.nodes):
            raise self._error(
                value,
                f"the graph already has a node %{self.slot}",
                "a region's slot enters once",
                "Prune each region once",
            )
        try:
            found = trace(entry, value, read_layout(self.layout))
            self._rewrite(gm.graph, entry, value, found)
        except TokensMixedError as error:
            raise self._error(
                value, str(error), "pruning wants tokens that stay apart", "Reuse the region"
            ) from error
        report.rewrote(value, f"{self.kept} tokens by relevance of {self.source}, and %{self.slot}")

    def _rewrite(self, graph: fx.Graph, entry: fx.Node, value: fx.Node, found: Trace) -> None:
        slot = add_slot(graph, self.slot, value)
        if self.difference:
            slot.meta["val"] = aten.sub.Tensor(value.meta["val"], entry.meta["val"])
        layout = found.layouts[entry]
        [rows], [pooled] = read_layout([self.rows]), read_layout([self.pooled])
        relevance = self._relevance(graph, entry, length(rows), tokens_of(layout))
        with graph.inserting_before(entry.next):
            choice = choose(graph, relevance, rows, pooled, self.kept, [*found.layouts.values()])
            now = {entry: take(graph, entry, layout, choice)}
        for node, call in found.calls.items():
            if node in found.kept:
                with graph.inserting_before(node):
                    operands = {o: take(graph, o, at, choice) for o, at in call.taken.items()}
                    args, kwargs = _arguments(node, call, {**now, **operands}, self.kept)
                    whole = node in found.whole or not found.kept.issuperset(node.users)
                    if node is value or whole:
                        now[node] = emit(graph, _target(node), *args, **kwargs)
                        continue
                node.args, node.kwargs = args, kwargs
                node.meta = {"val": derive(node)}
                now[node] = node
        with graph.inserting_before(value):
            rest = emit(graph, aten.add.Tensor, entry, slot) if self.difference else slot
            placed = put(graph, now[value], rest, layout, choice)
        become(value, aten.reshape.default, placed, list(shape_of(value)))

    def _relevance(self, graph: fx.Graph, entry: fx.Node, rows: int, tokens: int) -> fx.Node:
        for node in graph.find_nodes(op="placeholder"):
            if node.name == self.relevance:
                return node
        node = add_slot(graph, self.relevance, entry)
        node.meta["val"] = entry.meta["val"].new_empty((rows, tokens), dtype=torch.float32)
        return node

    def _error(self, value: fx.Node, fact: str, wanted: str, remedy: str) -> PassError:
        return PassError(self.name, f"%{value.name} ({self.region})", fact, wanted, remedy)


def _arguments(
    node: fx.Node, call: Carried, now: Mapping[fx.Node, fx.Node], count: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call's arguments, of the kept tokens where it does not need them whole."""

    def kept(operand: fx.Node) -> fx.Node:
        return now.get(operand, operand)

    args: list[Any] = [
        argument if index in call.whole else map_arg(argument, kept)
        for index, argument in enumerate(node.args)
    ]
    if call.shape_at is not None:
        args[call.shape_at] = kept_shape(call.layout, count)
    return tuple(args), dict(map_arg(node.kwargs, kept))


def _target(node: fx.Node) -> Callable[..., Any]:
    target: Any = node.target
    return target
