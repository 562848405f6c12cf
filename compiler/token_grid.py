"""token-grid: what the tokens of a sample [images, tokens, channels] are made of.

A caller may say it. Else the positions that the network gives its tokens tell it: a table made of
two or three counts from zero, one inside the other, that is put to the tokens one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import fx
from turbo4d.compiler.axis_rules import POSITION
from turbo4d.compiler.factors import Axes, Axis, Root, length, whole

_LETTERS = {1: "S", 2: "HW", 3: "FHW"}
_NAMES = ("frames", "height", "width")


def grid_of_tokens(given: Mapping[str, int | str], tokens: Root) -> list[Root] | None:
    """The axes of the tokens as someone said them; None where that is too little.

    Args:
        given: sizes by name.
        tokens: the axis of all tokens.
    """
    sizes = [int(given[name]) for name in _NAMES if name in given]
    if "height" not in given or "width" not in given or math.prod(sizes) != tokens.size:
        return None
    return _roots(sizes)


def grid_by_positions(
    graph: fx.Graph, of: Mapping[str, Axes], stream: frozenset[str], tokens: Root
) -> list[Root] | None:
    """The axes of the tokens as the network's own positions count them; None where they do not.

    Args:
        graph: of the network.
        of: the axes of every value.
        stream: names of the nodes that depend on the sample.
        tokens: the axis of all tokens.
    """
    found: set[tuple[int, ...]] = set()
    for node in graph.nodes:
        sources = node.all_input_nodes
        if node.op != "call_function" or node.name not in stream or len(sources) < 2:
            continue
        mine = [axis for s in sources if s.name in stream for axis in of[s.name]]
        if whole(tokens) not in mine:
            continue
        tables = [axis for s in sources if s.name not in stream for axis in of[s.name]]
        found |= {sizes for axis in tables if (sizes := _counts(axis, tokens.size))}
    return _roots(list(found.pop())) if len(found) == 1 else None


def _counts(axis: Axis, size: int) -> tuple[int, ...]:
    """The lengths of the counts that an axis of positions is made of."""
    roots = {atom.root for atom in axis}
    counted = all(atom.root.letter == POSITION for atom in axis) and len(roots) == len(axis)
    fits = counted and length(axis) == size and len(axis) in (2, 3)
    return tuple(atom.size for atom in axis) if fits else ()


def _roots(sizes: list[int]) -> list[Root]:
    return [Root(letter, size) for letter, size in zip(_LETTERS[len(sizes)], sizes, strict=True)]
