"""costs: where the floating-point operations of a call go, by kind of attention."""

from __future__ import annotations

from torch import fx
from turbo4d.compiler.analysis import Analysis
from turbo4d.compiler.flops import MULTIPLIERS
from turbo4d.compiler.flow import only_for
from turbo4d.compiler.sites import SELF_KINDS, Site


def flops_by_kind(analysis: Analysis) -> dict[str, int]:
    """Operations of a call by kind; the values add up to the whole.

    A kind of self-attention has its blocks' projections and feed-forwards; "cross" and "reference"
    have the attention with its four projections; "other" is everything outside blocks.
    """
    nodes: dict[str, fx.Node] = {node.name: node for node in analysis.capture.module.graph.nodes}
    owner: dict[str, str] = {}
    for site in analysis.sites:
        if site.kind not in SELF_KINDS:
            for name in _with_projections(nodes[site.node]):
                owner.setdefault(name, site.kind)
    kinds = {site.name: site.kind for site in analysis.sites}
    # Of a chain that is one block there is no block of its own; smaller regions come first.
    for region in sorted(analysis.regions, key=lambda region: region.nodes):
        own = [kinds[name] for name in region.sites if kinds[name] in SELF_KINDS]
        if region.kind == "block" or (region.kind == "chain" and len(set(own)) == 1):
            for node in only_for(nodes[region.value], nodes[region.entry]):
                owner.setdefault(node.name, own[0])
    totals = {kind: 0 for kind in (*SELF_KINDS, "cross", "reference", "other")}
    for name, flops in analysis.flops.items():
        kind = owner.get(name, "other")
        totals[kind] = totals.get(kind, 0) + flops
    return {kind: flops for kind, flops in totals.items() if flops or kind == "other"}


def folded_sites(analysis: Analysis) -> tuple[Site, ...]:
    """The cross-attentions with one key: their softmax is 1, so they need no attention at all."""
    return tuple(s for s in analysis.sites if s.kind == "cross" and s.key_tokens == 1)


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
