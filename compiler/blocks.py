"""blocks: a chain cut at its narrow places, one piece around each attention."""

from __future__ import annotations

import torch
from turbo4d.compiler.chains import Segment
from turbo4d.compiler.flow import Flow

aten = torch.ops.aten


def find_blocks(flow: Flow, chain: Segment, kinds: dict[int, str]) -> list[tuple[str, Segment]]:
    """The blocks of a chain, in order, with the kind of each.

    A block reaches from the cut before its attention to the last feed-forward or cross-attention
    before the next one. What stands before the first attention belongs to the first block.

    Args:
        flow: of the graph.
        chain: whose inside is cut.
        kinds: by position, the kind of each attention over the sample itself.
    """
    cuts, where = flow.spine(chain.entry, chain.value)
    filled = sorted({gap for at, gap in where.items() if at not in cuts})
    first: dict[int, str] = {}
    for at in sorted(where):
        if at in kinds:
            first.setdefault(where[at], kinds[at])
    attended = sorted(first)
    found: list[tuple[str, Segment]] = []
    for number, gap in enumerate(attended):
        limit = attended[number + 1] if number + 1 < len(attended) else len(cuts)
        start = gap if number else min([gap, *(g for g in filled if g < gap)])
        end = max([gap, *(g for g in filled if gap < g < limit)])
        found.append((first[gap], _segment(flow, cuts[start], cuts[end + 1])))
    return found


def _segment(flow: Flow, entry: int, exit: int) -> Segment:
    node = flow.nodes[exit]
    sides = [flow.index.get(operand.name, -1) for operand in node.all_input_nodes]
    plain_sum = node.target is aten.add.Tensor and node.kwargs.get("alpha", 1) == 1
    if plain_sum and entry in sides and len(sides) == 2:
        return Segment(entry, exit, sides[1 - sides.index(entry)])
    return Segment(entry, exit, exit)
