"""chains: which segments of the stream are the S-C-M sequence of one transformer module.

A chain is the smallest residual segment, `exit = entry + r`, whose attentions over the sample run
over two or more kinds of axis. Attentions outside such a segment make chains of one kind: the
outermost residual segment of theirs, with the feed-forwards and cross-attentions that follow it.

A segment around a convolution may be a residual of the network as well as of a module. It is a
chain where it holds each kind of axis once, or where it is the smallest around an attention that
nothing else holds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import fx
from turbo4d.compiler.flow import Flow, Segment
from turbo4d.compiler.node_values import shape_of
from turbo4d.compiler.ports import SCALINGS, SUMS, agree, passed_on, summed

aten = torch.ops.aten
_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
_CAST = aten._to_copy.default
_SHAPES = (aten.reshape.default, aten.permute.default, aten.unsqueeze.default)
# What may stand between two residuals on the stream itself.
_ON_THE_WAY = (*_SHAPES, *SCALINGS, aten.layer_norm.default, aten.rms_norm.default)


def find_chains(
    flow: Flow, kinds: dict[int, str], levels: Sequence[Segment] = (), inner: int = 0
) -> list[Segment]:
    """The chains of a network, in order, disjoint.

    Args:
        flow: of the graph.
        kinds: by position, the kind of each attention over the sample itself.
        levels: which no chain with a convolution holds.
        inner: where the core begins; a sum that starts before is the network's own.
    """
    # By size: what contains another comes after it.
    found = sorted(_residuals(flow), key=lambda segment: (segment.exit - segment.entry, segment))
    inside = {segment: _kinds_inside(flow, segment, kinds) for segment in found}
    around = {segment for segment in found if _has_convolution(flow, segment)}
    plain = [segment for segment in found if segment not in around]
    mixing = [
        segment
        for segment in found
        if segment in around
        and segment.entry >= max(inner, 1)
        and not any(segment.entry < level.entry <= segment.exit for level in levels)
    ]
    chains = _mixed(plain, inside)
    chains += _mixed_around_convolutions(mixing, inside, chains)
    taken = {at for chain in chains for at in inside[chain]}
    outermost_first = sorted(plain, key=lambda s: (s.entry - s.exit, s.entry))
    alone = _single([*outermost_first, *mixing], inside, taken)
    following = {segment.entry: segment for segment in plain if not inside[segment]}
    chains += [_with_feed_forwards(flow, segment, following) for segment in alone]
    return sorted(chains)


def _residuals(flow: Flow) -> list[Segment]:
    found: list[Segment] = []
    for exit, node in enumerate(flow.nodes):
        summands, sums = _summands(flow, node)
        for entry in summands:
            if not agree(flow.nodes[entry], node) or not flow.is_segment(entry, exit):
                continue
            # What is added must be made of the entry: positions are not.
            if not sums.issuperset(flow.between(entry, exit)):
                found.append(_added(flow, entry, exit))
    return found


def _summands(flow: Flow, sum: fx.Node) -> tuple[list[int], set[int]]:
    """What a sum is made of, what only it reads looked through: sums, scaled and cast values.

    So attention and feed-forward that work side by side are one residual, and a blend is one too.

    Returns:
        All of them, and those looked through with the sum itself.
    """
    found: list[int] = []
    waiting, sums = [sum] if _is_sum(sum) else [], {flow.index[sum.name]}
    while waiting:
        for operand in passed_on(flow, waiting.pop()):
            if operand.name not in flow.index:
                continue
            found.append(flow.index[operand.name])
            if len(operand.users) == 1 and operand.target in (*SUMS, *SCALINGS, _CAST):
                waiting.append(operand)
                sums.add(found[-1])
    return found, sums


def _is_sum(node: fx.Node) -> bool:
    """Whether a node is a sum, or the cast of one that nothing else reads."""
    if node.target is _CAST:
        [operand] = node.all_input_nodes
        return operand.target in SUMS and len(operand.users) == 1
    return node.target in SUMS


def _added(flow: Flow, entry: int, exit: int) -> Segment:
    segment = summed(flow, entry, exit)
    alike = shape_of(flow.nodes[segment.value]) == shape_of(flow.nodes[exit])
    return segment if alike else Segment(entry, exit, exit)


def _has_convolution(flow: Flow, segment: Segment) -> bool:
    """Whether a convolution mixes pixels and channels at once, which few transformers do."""
    for position in flow.between(segment.entry, segment.exit):
        node = flow.nodes[position]
        if node.target in _CONVOLUTIONS:
            _, channels, *kernel = shape_of(node.args[1])
            # One channel at a time is what feed-forwards over images do.
            if max(kernel) > 1 and channels > 1:
                return True
    return False


def _kinds_inside(flow: Flow, segment: Segment, kinds: dict[int, str]) -> dict[int, str]:
    if not any(segment.entry < at < segment.exit for at in kinds):
        return {}
    members = flow.between(segment.entry, segment.exit)
    return {at: kinds[at] for at in members if at in kinds}


def _mixed(found: list[Segment], inside: dict[Segment, dict[int, str]]) -> list[Segment]:
    chains: list[Segment] = []
    for segment in found:
        sites = inside[segment]
        if len(set(sites.values())) < 2:
            continue
        held = [chain for chain in chains if _holds(segment, chain)]
        if len(held) > 1:
            continue
        if held and set(inside[held[0]].values()) == set(sites.values()):
            continue
        chains = [chain for chain in chains if chain not in held]
        chains.append(segment)
    return chains


def _mixed_around_convolutions(
    mixing: list[Segment], inside: dict[Segment, dict[int, str]], chains: list[Segment]
) -> list[Segment]:
    """S-C-M modules with a convolution in their residual branch: no kind of axis comes twice."""
    found: list[Segment] = []
    for segment in mixing:
        sites = inside[segment]
        once = 0 < len(sites) == len(set(sites.values()))
        if once and not any(_holds(segment, chain) for chain in (*chains, *found)):
            found.append(segment)
    return found


def _holds(outer: Segment, inner: Segment) -> bool:
    return outer.entry <= inner.entry and inner.exit <= outer.exit


def _single(
    found: list[Segment], inside: dict[Segment, dict[int, str]], taken: set[int]
) -> list[Segment]:
    chains: list[Segment] = []
    for segment in found:
        sites = inside[segment]
        if not sites or len(set(sites.values())) > 1 or taken & set(sites):
            continue
        taken = taken | set(sites)
        chains.append(segment)
    return chains


def _with_feed_forwards(flow: Flow, segment: Segment, following: dict[int, Segment]) -> Segment:
    """The segment with the residual segments without attention that follow it at once.

    Where each sum is normed or scaled before the next, so is the last before the segment ends.
    """
    end, between = segment.exit, set[object]()
    while (after := following.get(_onward(flow, end, _ON_THE_WAY)[-1])) is not None:
        # Beside another residual of the next block, it is that block's.
        if not flow.is_segment(segment.entry, after.exit):
            break
        between |= {flow.nodes[at].target for at in _onward(flow, end, _ON_THE_WAY)[1:]}
        end = after.exit
    if end == segment.exit:
        return segment
    end = _onward(flow, end, between - {*_SHAPES, *SCALINGS})[-1]
    return Segment(_shaped_as(flow, segment, end), end, end)


def _shaped_as(flow: Flow, segment: Segment, end: int) -> int:
    """The segment's entry, or what it is a view of, where that has the shape of the end."""
    wanted, entry = shape_of(flow.nodes[end]), segment.entry
    while shape_of(flow.nodes[entry]) != wanted and flow.nodes[entry].target in _SHAPES:
        [entry] = flow.before(flow.nodes[entry])
    alike = shape_of(flow.nodes[entry]) == wanted and flow.is_segment(entry, end)
    return entry if alike else segment.entry


def _onward(flow: Flow, position: int, through: Collection[object]) -> list[int]:
    """The values from one on, as long as each is read by one of some operators alone."""
    found = [position]
    while len(flow.nodes[found[-1]].users) == 1:
        [user] = flow.nodes[found[-1]].users
        if user.target not in through or flow.before(user) != found[-1:]:
            break
        found.append(flow.index[user.name])
    return found
