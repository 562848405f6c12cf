"""costs: where the operations of a call go, and what a variant computes and reads of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import fx
from turbo4d.compiler.analysis import Analysis
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.flops import MULTIPLIERS, count_flops
from turbo4d.compiler.flow import only_for
from turbo4d.compiler.regions import Region
from turbo4d.compiler.sites import SELF_KINDS, Site
from turbo4d.compiler.specialise import Variant


def flops_by_kind(analysis: Analysis) -> dict[str, int]:
    """Operations of a call by kind; the values add up to the whole.

    A kind of self-attention has its blocks' projections and feed-forwards; "cross" and "reference"
    have the attention with its four projections; "other" is everything outside blocks.
    """
    owner = kinds_of(analysis, analysis.capture.module.graph)
    totals = {kind: 0 for kind in (*SELF_KINDS, "cross", "reference", "other")}
    for name, flops in analysis.flops.items():
        kind = owner.get(name, "other")
        totals[kind] = totals.get(kind, 0) + flops
    return {kind: flops for kind, flops in totals.items() if flops or kind == "other"}


def kinds_of(analysis: Analysis, graph: fx.Graph) -> dict[str, str]:
    """The kind of attention that each node of a graph serves, by node name; others are left out.

    Args:
        analysis: of the model.
        graph: its own, or of one of its variants; what is not executed there owns nothing.
    """
    nodes: dict[str, fx.Node] = {node.name: node for node in graph.nodes}
    owner: dict[str, str] = {}
    for site in analysis.sites:
        if site.kind not in SELF_KINDS and site.node in nodes:
            for name in _with_projections(nodes[site.node]):
                owner.setdefault(name, site.kind)
    kinds = {site.name: site.kind for site in analysis.sites}
    # Of a chain that is one block there is no block of its own; smaller regions come first.
    for region in sorted(analysis.regions, key=lambda region: region.nodes):
        own = [kinds[name] for name in region.sites if kinds[name] in SELF_KINDS]
        if region.kind == "block" or (region.kind == "chain" and len(set(own)) == 1):
            for name in nodes_of(region, nodes):
                owner.setdefault(name, own[0])
    return owner


def nodes_of(region: Region, nodes: Mapping[str, fx.Node]) -> tuple[str, ...]:
    """The nodes of a graph that only this region needs; none where it is not executed.

    Args:
        region: of the model.
        nodes: of the graph, by name.
    """
    values = [nodes[port.value] for port in region.ports if port.value in nodes]
    if len(values) < len(region.ports) or any(value.op == "placeholder" for value in values):
        return ()
    # An entry that the prologue gives is a placeholder under another name, where the search ends.
    entries = [nodes[entry] for entry in region.entries if entry in nodes]
    return tuple(node.name for node in only_for(values, entries))


def folded_sites(analysis: Analysis) -> tuple[Site, ...]:
    """The cross-attentions with one key: their softmax is 1, so they need no attention at all."""
    return tuple(s for s in analysis.sites if s.kind == "cross" and s.key_tokens == 1)


def variant_flops(variant: Variant) -> int:
    """Operations of one call of a variant: those of its own graph, without the prologue's."""
    return sum(count_flops(variant.module.graph).values())


def dead_weights(analysis: Analysis, variants: Sequence[Variant]) -> tuple[str, ...]:
    """The weights that a set of variants, and the prologue of the exact ones, never reads.

    Args:
        analysis: of the model.
        variants: all of a plan's.

    Returns:
        Their names in the state dict, in the capture's order.
    """
    read = {index for variant in variants for index in variant.arg_indices}
    if any(variant.key.exact for variant in variants):
        read.update(exact_form(analysis).prologue.arg_indices)
    return tuple(
        row.target
        for index, row in enumerate(analysis.capture.table)
        if row.kind == "weight" and index not in read
    )


def _with_projections(attention: fx.Node) -> set[str]:
    """The attention, what only it reads, and the projection of its result."""
    found = {node.name for node in only_for(attention, attention)}
    node = attention
    while len(node.users) == 1 and node.op == "call_function":
        [node] = node.users
        if node.target in MULTIPLIERS:
            found.add(node.name)
            break
    return found
