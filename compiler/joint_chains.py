"""joint-chains: transformer blocks that update two streams at once, text and video.

Between two such blocks no single value is all that goes on: the cut has two. It is looked for in
the order of the graph, where two values of the stream are live and neither is made of the other.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import fx
from turbo4d.compiler.flow import Flow
from turbo4d.compiler.ports import SHAPES, Port, agree, carried, port_of


@dataclass(frozen=True)
class Joint:
    """A piece of the stream between two cuts of one or two values each.

    Args:
        entry: position in the flow after which it begins.
        exit: position of its last node.
        entries: names of the values that come in, those that end here too.
        ports: one per value that it changes and that is used after it.
        members: positions of its nodes.
    """

    entry: int
    exit: int
    entries: tuple[str, ...]
    ports: tuple[Port, ...]
    members: tuple[int, ...]


def find_joint_chains(
    flow: Flow, sites: Collection[int], alone: Collection[int], inner: int, end: int
) -> list[Joint]:
    """The chains of two streams, in order, disjoint.

    Args:
        flow: of the graph.
        sites: position of each attention over the sample itself.
        alone: those of them that no chain with one entry and one exit holds.
        inner: position at which the core begins.
        end: position at which it ends.
    """
    if not alone:
        return []
    cuts = _cuts(flow, inner, end)
    chains: list[Joint] = []
    starts = sorted({max((p for p in cuts if p < at), default=-1) for at in alone} - {-1})
    for start in starts:
        inside = [at for at in sorted(sites) if at > start]
        # What the next site's chain begins with is where this one must have ended.
        same = [at for at in inside if not any(start < p < at for p in cuts)]
        later = [at for at in inside if at not in same]
        limit = later[0] if later else end + 1
        if not set(same) <= set(alone):
            continue
        for stop in sorted((p for p in cuts if same[-1] < p < limit), reverse=True):
            if (joint := _between(flow, start, stop, cuts)) is not None:
                chains.append(joint)
                break
    return chains


def _cuts(flow: Flow, inner: int, end: int) -> dict[int, tuple[int, ...]]:
    """Where one or two values of the stream are all that is live, and which they are."""
    last = list(range(len(flow.nodes)))
    for position, node in enumerate(flow.nodes):
        for source in flow.before(node):
            last[source] = position
        if any(user.op == "output" for user in node.users):
            last[position] = len(flow.nodes)
    found: dict[int, tuple[int, ...]] = {}
    live: set[int] = set()
    for position in range(end + 1):
        live = {value for value in live if last[value] > position}
        if last[position] > position:
            live.add(position)
        if position < inner:
            continue
        values = _distinct(flow, live)
        if len(values) == 1 or (len(values) == 2 and not _nested(flow, *values)):
            found[position] = tuple(values)
    return found


def _distinct(flow: Flow, live: Collection[int]) -> list[int]:
    """Live values, those of one memory in several shapes counted once, as what they come from."""
    made: dict[int, list[int]] = {}
    for value in sorted(live):
        base = flow.nodes[value]
        while base.target in SHAPES and isinstance(base.args[0], fx.Node):
            base = base.args[0]
        made.setdefault(flow.index.get(base.name, value), []).append(value)
    return sorted(base if len(values) > 1 else values[0] for base, values in made.items())


def _nested(flow: Flow, first: int, second: int) -> bool:
    return flow.dominates(first, second) or flow.dominates(second, first)


def _between(flow: Flow, start: int, stop: int, cuts: dict[int, tuple[int, ...]]) -> Joint | None:
    """The chain between two cuts, where each value that leaves is one that came in, and a sum."""
    entries = cuts[start]
    changed = [value for value in cuts[stop] if value not in entries]
    ports: list[Port] = []
    for value in changed:
        exit = flow.nodes[value]
        came_in = _came_in(flow, exit, entries)
        if came_in is None:
            return None
        ports.append(port_of(came_in, exit, exit))
    # The sample's own stream comes first: text starts off the stream, and has fewer tokens.
    ports.sort(key=lambda port: (port.entry not in flow.index, -port.size_bytes))
    members = flow.inside(entries, changed)
    names = [flow.nodes[entry].name for entry in entries]
    names += [port.entry for port in ports if port.entry is not None]
    if not ports:
        return None
    return Joint(start, max(changed), tuple(dict.fromkeys(names)), tuple(ports), tuple(members))


def _came_in(flow: Flow, exit: fx.Node, entries: Collection[int]) -> fx.Node | None:
    """The value that `exit` is a sum of, and that came in on the stream or from outside it."""
    for node in carried(flow, exit):
        at = flow.index.get(node.name)
        if agree(node, exit) and (at in entries if at is not None else node.op != "placeholder"):
            return node
    return None
