"""segments: a variant's graph cut into runs of nodes, each a small graph of its own.

Structure that repeats (the chains of one level, the residual blocks between them, the same run in
two variants) gives segments of equal text, whatever its nodes are called: a lowering that compiles
by text compiles each of them once.

A graph is cut where that costs no fusion, since a value is stored there anyway: after each
convolution over pixels or frames, and where regions begin and where they end, so that the same runs
appear in variants that compute a region, record it, or reuse it.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from turbo4d.passes.base import owner, returned
from turbo4d.passes.compat import aliased_argument

if TYPE_CHECKING:
    from turbo4d.runtime.variant_key import VariantKey

    from .regions import Region

aten = torch.ops.aten
_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)


def cuts_of(regions: Iterable[Region], key: VariantKey) -> frozenset[str]:
    """Where regions make a segment end: at what enters each of them, and at what a slot holds.

    A residual's exit is no cut: the sum is taken together with what follows it, be the value
    computed or read from a slot. Blocks cut a graph only where the variant names them.

    Args:
        regions: of the model.
        key: of the variant.
    """
    named = {*dict(key.actions), *key.writes}
    chosen = [region for region in regions if region.kind != "block" or region.name in named]
    ports = [port for region in chosen for port in region.ports]
    entries = {port.entry for port in ports if port.entry is not None}
    return frozenset(entries | {port.value for port in ports})


@dataclass(frozen=True)
class Segment:
    """A run of nodes that can be compiled and called on its own.

    Args:
        graph: its own, nodes renumbered; placeholders in the order of `inputs`.
        inputs: names in the variant's graph of what it takes.
        outputs: names in the variant's graph of what it gives.
    """

    graph: fx.Graph
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def split(graph: fx.Graph, cuts: Collection[str]) -> tuple[Segment, ...]:
    """Cut a graph into segments, in the order they run.

    A view that is used in a later segment is taken again there, from the value it looks at.

    Args:
        graph: of a variant, or of a prologue.
        cuts: names of nodes after which a segment ends; one that the graph has not is passed over.
    """
    runs = _Runs(graph, cuts)
    wanted = {node for node in returned(graph) if node.op == "call_function"}
    found: list[Segment] = []
    for number in range(len(runs.members) - 1, -1, -1):
        outputs = [node for node in runs.members[number] if node in wanted]
        if outputs:
            segment, outside = runs.extract(number, outputs)
            wanted.update(node for node in outside if node.op == "call_function")
            found.append(segment)
    return tuple(reversed(found))


class _Runs:
    """Which run each call of a graph belongs to.

    Args:
        graph: canonical.
        cuts: as in `split`.

    Attributes:
        members: the nodes of each run, in order.
    """

    def __init__(self, graph: fx.Graph, cuts: Collection[str]) -> None:
        self.members: list[list[fx.Node]] = [[]]
        self._cuts = cuts
        self._results = set(returned(graph))
        self._place = {node: place for place, node in enumerate(graph.nodes)}
        self._run: dict[fx.Node, int] = {}
        for node in graph.nodes:
            if node.op == "call_function":
                self._add(node)

    def _add(self, node: fx.Node) -> None:
        run = len(self.members) - 1
        if node.target is operator.getitem:  # a tuple does not leave its segment
            run = self._run[node.all_input_nodes[0]]
        self._run[node] = run
        self.members[run].append(node)
        # What only the caller takes, such as a slot's difference, must not change what follows.
        alone = self.members[run] == [node] and all(user.op == "output" for user in node.users)
        if node.name in self._cuts or _stores(node) or alone:
            self.members.append([])

    def extract(
        self, number: int, outputs: Sequence[fx.Node]
    ) -> tuple[Segment, tuple[fx.Node, ...]]:
        """What one run executes for some of its nodes, and the values of others that it takes."""
        nodes = self._needed(number, outputs)
        outside = tuple(
            dict.fromkeys(o for node in nodes for o in node.all_input_nodes if o not in nodes)
        )
        graph = fx.Graph()
        env: dict[fx.Node, fx.Node] = {}
        for place, operand in enumerate(outside):
            env[operand] = graph.placeholder(f"in_{place}")
            env[operand].meta["val"] = operand.meta["val"]
        for node in nodes:
            args: Any = fx.map_arg(node.args, env.__getitem__)
            kwargs: Any = fx.map_arg(node.kwargs, env.__getitem__)
            target: Any = node.target
            env[node] = graph.call_function(target, args, kwargs)
            env[node].meta["val"] = node.meta["val"]
        graph.output(tuple(env[node] for node in outputs))
        inputs = tuple(operand.name for operand in outside)
        return Segment(graph, inputs, tuple(node.name for node in outputs)), outside

    def _needed(self, number: int, outputs: Sequence[fx.Node]) -> dict[fx.Node, None]:
        needed = set(outputs)
        waiting = list(outputs)
        while waiting:
            for operand in waiting.pop().all_input_nodes:
                inside = self._run.get(operand) == number or self._taken_again(operand)
                if inside and operand not in needed:
                    needed.add(operand)
                    waiting.append(operand)
        return dict.fromkeys(sorted(needed, key=self._place.__getitem__))

    def _taken_again(self, node: fx.Node) -> bool:
        """Whether a node is a view that the runs after it take themselves."""
        if node.op != "call_function" or aliased_argument(node.target) is None:
            return False
        held = owner(node)
        if held.op != "call_function" or self._run[held] != self._run[node]:
            return True
        return node.name not in self._cuts and node not in self._results


def _stores(node: fx.Node) -> bool:
    """Whether any lowering stores the node's value: a convolution over a neighbourhood."""
    if node.target not in _CONVOLUTIONS:
        return False
    weight: Any = node.args[1]
    return max(weight.meta["val"].shape[2:]) > 1
