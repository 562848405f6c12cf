"""I7: which attention is the site of which region, checked on a graph that passes have changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import fx

from .flow import only_for

if TYPE_CHECKING:
    from .analysis import Analysis
    from .regions import Region

SDPA = torch.ops.aten.scaled_dot_product_attention.default


def known_sites(analysis: Analysis) -> dict[str, str | None]:
    """For each attention's node the smallest region that holds it; None where none does.

    Attentions off the sample's path, such as those that refine the conditioning, are no sites.
    They are known too; whichever region reads them may take them along.
    """
    graph = analysis.capture.module.graph
    fused = {node.name: None for node in graph.find_nodes(op="call_function", target=SDPA)}
    return {**fused, **{site.node: site.region for site in analysis.sites}}


def misplaced(
    graph: fx.Graph, sites: Mapping[str, str | None], regions: Sequence[Region]
) -> Iterator[tuple[fx.Node, str]]:
    """Each attention that is not where it should be, and why.

    A region is looked at where the nodes of its ports are still in the graph. An attention is its
    region's where it would be dead if the region came from its slots: so it is for its own region
    and for those around it, and for no other.

    Args:
        graph: any.
        sites: for each known attention its region.
        regions: with their parents; empty leaves the regions out.
    """
    nodes: dict[str, fx.Node] = {node.name: node for node in graph.nodes}
    for node in graph.find_nodes(op="call_function", target=SDPA):
        if node.name not in sites:
            yield node, f"the attention is none of the {len(sites)} known sites"
    parents = {region.name: region.parent for region in regions}
    intact: set[str] = set()
    holders: dict[str, set[str]] = {name: set() for name in sites if name in nodes}
    for region in regions:
        entries = region.entries
        values = [port.value for port in region.ports]
        if all(name in nodes for name in (*entries, *values)):
            intact.add(region.name)
            for node in only_for([nodes[n] for n in values], [nodes[n] for n in entries]):
                if node.name in holders:
                    holders[node.name].add(region.name)
    for name, held in holders.items():
        own = sites[name]
        if own is not None:
            yield from ((nodes[name], why) for why in _why_not(own, held, parents, intact))


def _why_not(
    own: str, held: set[str], parents: Mapping[str, str | None], intact: set[str]
) -> Iterator[str]:
    around: list[str] = []
    outer: str | None = own
    while outer is not None:
        around.append(outer)
        outer = parents.get(outer)
    for region in sorted(held - set(around)):
        yield f"the attention is the site of {own!r}, and would be gone with {region!r} as well"
    if own in intact and own not in held:
        yield f"the attention is the site of {own!r}, and would stay if that came from its slot"
