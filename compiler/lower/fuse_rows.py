"""fuse-rows: every place of a graph that the row kernels take becomes one call of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import fx
from turbo4d.passes.base import erase_unused, returned

from .fuse_blocks import fuse_block
from .fuse_channels import fuse_convolution, fuse_group_norm
from .places import aten


@dataclass(frozen=True)
class Fused:
    """What was fused.

    Args:
        places: how many calls of the kernels there are.
        stored: those among them after which a segment may end at no cost: the convolutions.
    """

    places: int
    stored: frozenset[str]


def fuse_rows(graph: fx.Graph, named: Collection[str] = ()) -> Fused:
    """Fuse what the kernels take.

    Args:
        graph: functional, of a variant; changed in place.
        named: nodes that must stay.
    """
    kept = {node.name for node in returned(graph)}.union(named)
    places, stored = 0, set[str]()
    for node in list(graph.nodes):
        if (name := fuse_convolution(node, kept)) is not None:
            stored.add(name)
            places += 1
        elif node.target is aten.group_norm.default:
            places += fuse_group_norm(node, kept)
        elif node.target is aten.linear.default:
            places += fuse_block(node, kept)
    if places:
        erase_unused(graph)
    return Fused(places, frozenset(stored))
