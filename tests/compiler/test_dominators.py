from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from turbo4d.compiler.dominators import Dominators

Graph = list[list[int]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """For each vertex the smaller vertices with an edge to it."""
    count = draw(st.integers(1, 12))
    return [
        draw(st.lists(st.integers(0, vertex - 1), unique=True, max_size=3)) if vertex else []
        for vertex in range(count)
    ]


def reachable(before: Graph, without: int | None) -> set[int]:
    found: set[int] = set()
    for vertex in range(len(before)):
        entered = vertex == 0 or any(source in found for source in before[vertex])
        if entered and vertex != without:
            found.add(vertex)
    return found


@given(graphs())
def test_dominance_is_what_removal_cuts_off(before: Graph) -> None:
    tree = Dominators(before)
    reached = reachable(before, None)
    for above in reached:
        kept = reachable(before, above)
        for below in reached:
            assert tree.dominates(above, below) == (below not in kept)


@given(graphs())
def test_the_parent_is_the_nearest_dominator(before: Graph) -> None:
    tree = Dominators(before)
    reached = reachable(before, None)
    for vertex in range(len(before)):
        strict = [v for v in reached if v != vertex and tree.dominates(v, vertex)]
        if vertex == 0 or vertex not in reached:
            assert tree.parent[vertex] == -1
        else:
            assert tree.parent[vertex] == max(strict)
            assert tree.chain(vertex) == [*sorted(strict), vertex]


def test_a_long_chain_is_fast_enough() -> None:
    count = 50_000
    tree = Dominators([[], *([at - 1, max(at - 7, 0)] for at in range(1, count))])
    assert tree.dominates(0, count - 1)
