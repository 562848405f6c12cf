"""blocks: a chain cut at its narrow places, one residual piece around each attention."""

from __future__ import annotations

from turbo4d.compiler.flow import Flow, Segment
from turbo4d.compiler.ports import SHAPES, agree, carried, summed


def find_blocks(flow: Flow, chain: Segment, kinds: dict[int, str]) -> list[tuple[str, Segment]]:
    """The blocks of a chain, in order, with the kind of each.

    A block reaches from the cut before its attention to the last feed-forward or cross-attention
    before the next one that leaves the stream as it came in. What stands before the first
    attention, or between two blocks, belongs to the block after it. A piece that does not hand on
    what came in is no block: what it adds to, the chain does.

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
    used = -1
    for number, gap in enumerate(attended):
        limit = attended[number + 1] if number + 1 < len(attended) else len(cuts)
        start = min([gap, *(g for g in filled if used < g < gap)])
        used = gap
        for end in sorted([gap, *(g for g in filled if gap < g < limit)], reverse=True):
            if (segment := _residual(flow, cuts, start, end + 1)) is not None:
                found.append((first[gap], segment))
                used = end
                break
    return found


def _residual(flow: Flow, cuts: list[int], start: int, end: int) -> Segment | None:
    """The segment between two cuts, moved over changes of shape until its ends agree."""
    entry = cuts[start]
    ends = [end]
    while ends[-1] + 1 < len(cuts) and flow.nodes[cuts[ends[-1] + 1]].target in SHAPES:
        ends.append(ends[-1] + 1)
    for exit in (cuts[number] for number in ends):
        if agree(flow.nodes[entry], flow.nodes[exit]):
            handed_on = carried(flow, flow.nodes[exit])
            return summed(flow, entry, exit) if flow.nodes[entry] in handed_on else None
    return None
