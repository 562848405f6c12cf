"""Dominators of a data-flow graph: which value does everything pass through?

Source: Cooper, Harvey and Kennedy, "A simple, fast dominance algorithm" (2001). On an acyclic
graph in topological order one sweep suffices.
"""

from __future__ import annotations

from collections.abc import Sequence


class Dominators:
    """The dominator tree of an acyclic graph with one root.

    Args:
        before: for each vertex the vertices with an edge to it, all smaller; the vertices are
            numbered in topological order and 0 is the root.

    Attributes:
        parent: immediate dominator of each vertex; -1 for the root and for a vertex that the root
            does not reach, which has no dominator and dominates nothing.
    """

    def __init__(self, before: Sequence[Sequence[int]]) -> None:
        count = len(before)
        self.parent = [-1] * count
        self._depth = [0] * count
        for vertex in range(1, count):
            reached = [p for p in before[vertex] if p == 0 or self.parent[p] >= 0]
            if not reached:
                continue
            meet = reached[0]
            for other in reached[1:]:
                meet = self._meet(meet, other)
            self.parent[vertex] = meet
            self._depth[vertex] = self._depth[meet] + 1
        self._first, self._last = self._intervals(count)

    def dominates(self, above: int, below: int) -> bool:
        """Whether every path from the root to `below` goes through `above`; one comparison."""
        return self._first[above] <= self._first[below] <= self._last[above]

    def chain(self, vertex: int) -> list[int]:
        """The dominators of `vertex`, from the root down to itself."""
        found = [vertex]
        while self.parent[found[-1]] >= 0:
            found.append(self.parent[found[-1]])
        return found[::-1]

    def _meet(self, a: int, b: int) -> int:
        while a != b:
            if self._depth[a] < self._depth[b]:
                a, b = b, a
            a = self.parent[a]
        return a

    def _intervals(self, count: int) -> tuple[list[int], list[int]]:
        """Number the tree so that a subtree is an interval; children are larger than parents."""
        size = [1] * count
        for vertex in range(count - 1, 0, -1):
            if self.parent[vertex] >= 0:
                size[self.parent[vertex]] += size[vertex]
        first = [-1 - vertex for vertex in range(count)]
        free = [0] * count
        if count:
            first[0], free[0] = 0, 1
        for vertex in range(1, count):
            if (parent := self.parent[vertex]) >= 0:
                first[vertex] = free[parent]
                free[vertex] = first[vertex] + 1
                free[parent] += size[vertex]
        last = [first[vertex] + size[vertex] - 1 for vertex in range(count)]
        return first, last
