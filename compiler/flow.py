"""flow: the sample's path through the graph, and its segments between two cuts."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from torch import fx
from turbo4d.compiler.dominators import Dominators


@dataclass(frozen=True, order=True)
class Segment:
    """A single-entry, single-exit piece of the stream, by positions in its flow.

    Args:
        entry: the value it starts from.
        exit: the value it ends with.
        value: the residual, where `exit = entry + value`; else `exit`.
    """

    entry: int
    exit: int
    value: int

    @property
    def residual(self) -> bool:
        """Whether the segment adds something to its entry."""
        return self.value != self.exit


class Flow:
    """The nodes that depend on the sample and reach a result, in the order of the graph.

    Args:
        graph: canonical.
        stream: names of the nodes that depend on the sample; its placeholder is the first.

    Attributes:
        nodes: the nodes.
        index: position of each by name.
    """

    def __init__(self, graph: fx.Graph, stream: frozenset[str]) -> None:
        self.nodes: list[fx.Node] = [node for node in graph.nodes if node.name in stream]
        self.index = {node.name: position for position, node in enumerate(self.nodes)}
        results: Any = graph.output_node().args[0]
        ends = [self.index[node.name] for node in results if node.name in self.index]
        before = [self.before(node) for node in self.nodes]
        count = len(self.nodes)
        self._forward = Dominators([*before, ends])
        self._after: list[set[int]] = [set() for _ in range(count)]
        after: list[list[int]] = [[] for _ in range(count + 1)]
        # Vertex count - v stands for node v, so that the virtual end is the root.
        for vertex, sources in enumerate([*before, ends]):
            for source in sources:
                after[count - source].append(count - vertex)
                self._after[source].add(vertex)
        self._backward = Dominators(after)

    def before(self, node: fx.Node) -> list[int]:
        """Positions of the operands of `node` on the stream."""
        return [self.index[o.name] for o in node.all_input_nodes if o.name in self.index]

    def is_segment(self, entry: int, exit: int) -> bool:
        """Whether all that enters between the two comes through `entry` and leaves by `exit`.

        The entry itself may be read elsewhere: a skip may begin where a block does.
        """
        end = len(self.nodes)
        if entry >= exit or not self._forward.dominates(entry, exit):
            return False
        if self._backward.dominates(end - exit, end - entry):
            return True
        members = {*self.between(entry, exit)}
        return all(self._after[at] <= members for at in members - {exit})

    def cuts(self) -> list[int]:
        """The values that everything passes through, from the sample to the result."""
        return self._forward.chain(len(self.nodes))[:-1]

    def furthest(self, entry: int) -> list[int]:
        """The exits of every segment that begins at `entry`, nearest first."""
        end = len(self.nodes)
        found: list[int] = []
        exit = end - self._backward.parent[end - entry]
        while exit < end and self._forward.dominates(entry, exit):
            found.append(exit)
            exit = end - self._backward.parent[end - exit]
        return found

    def between(self, entry: int, exit: int) -> list[int]:
        """Positions of a segment's nodes, `exit` included and `entry` left out, in order."""
        return self.inside((entry,), (exit,))

    def inside(self, entries: Collection[int], exits: Collection[int]) -> list[int]:
        """As `between`, for a cut of several values at either end."""
        found = set(exits)
        waiting = list(exits)
        while waiting:
            for source in self.before(self.nodes[waiting.pop()]):
                if source not in entries and source not in found:
                    found.add(source)
                    waiting.append(source)
        return sorted(found)

    def dominates(self, above: int, below: int) -> bool:
        """Whether `below` depends on the sample through `above` alone."""
        return self._forward.dominates(above, below)

    def spine(self, entry: int, exit: int) -> tuple[list[int], dict[int, int]]:
        """The cuts within a segment, and for each of its nodes which pair of cuts it lies between.

        Returns:
            The positions of the cuts, `entry` first and `exit` last; and for each node of the
            segment the number k such that it lies after cut k and not after cut k + 1.
        """
        members = [entry, *self.between(entry, exit)]
        local = {position: number for number, position in enumerate(members)}
        tree = Dominators(
            [
                [] if number == 0 else self._local(position, local)
                for number, position in enumerate(members)
            ]
        )
        cuts = tree.chain(local[exit])
        place = {cut: number for number, cut in enumerate(cuts)}
        where: dict[int, int] = {}
        below: dict[int, int] = {0: 0}
        for number in range(1, len(members)):
            below[number] = place.get(number, below[tree.parent[number]])
            where[members[number]] = below[number] - (number in place)
        return [members[cut] for cut in cuts], where

    def _local(self, position: int, local: dict[int, int]) -> list[int]:
        return [local[s] for s in self.before(self.nodes[position]) if s in local]


def only_for(
    value: fx.Node | Collection[fx.Node], entry: fx.Node | Collection[fx.Node]
) -> list[fx.Node]:
    """The nodes after `entry` that would be dead if `value` came from elsewhere, itself included.

    Those off the stream count too: a projection of the conditioning that nothing else reads.
    A region with several ports has several of both.
    """
    dead = {value} if isinstance(value, fx.Node) else set(value)
    kept = {entry} if isinstance(entry, fx.Node) else set(entry)
    waiting = list(dead)
    while waiting:
        for operand in waiting.pop().all_input_nodes:
            if operand.op == "placeholder" or operand in dead or operand in kept:
                continue
            if all(user in dead for user in operand.users):
                dead.add(operand)
                waiting.append(operand)
    return list(dead)


def total(nodes: Iterable[fx.Node], flops: dict[str, int]) -> int:
    """Sum of the operations of some nodes."""
    return sum(flops.get(node.name, 0) for node in nodes)
