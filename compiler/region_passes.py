"""From a row of the plan to the passes that carry it out on the regions of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from turbo4d.passes import BypassRegion, Pass, RecordSlot, ReuseRegion
from turbo4d.passes.base import slot_name

if TYPE_CHECKING:
    from torch import fx
    from turbo4d.runtime.plan import VariantKey

    from .regions import Port, Region


def passes_for(key: VariantKey, regions: Sequence[Region], graph: fx.Graph) -> tuple[Pass, ...]:
    """The passes of a variant.

    Recording comes first. Reuse and bypass follow from the last region of the graph to the first,
    since a region's entry may be the exit of the one before it. But a region that another's reuse
    leaves in part without a reader is reused before that one, while all of it is still there: its
    slot is handed over whole.

    Args:
        key: actions and writes; names only regions that exist.
        regions: of the canonical graph.
        graph: that the passes will be applied to.
    """
    known = {region.name: region for region in regions}
    nodes: dict[str, fx.Node] = {node.name: node for node in graph.nodes}
    position = {name: index for index, name in enumerate(nodes)}
    read = _read(key, known, nodes)
    passes: list[Pass] = [
        RecordSlot(name, port.value, _moved(port, nodes))
        for name in key.writes
        for port in known[name].ports
    ]
    steps: list[tuple[bool, int, Region, bool]] = []
    for name, action in key.actions:
        region = known[name]
        whole = all(port.value in read for port in region.ports)
        last = max(position[port.exit] for port in region.ports)
        reuse = action.kind == "reuse"
        steps.append((whole or not reuse, -last, region, reuse))
    for _, _, region, reuse in sorted(steps, key=lambda step: step[:2]):
        for number, port in enumerate(region.ports):
            if reuse:
                slot = slot_name(region.name) + (f"_{number}" if number else "")
                passes.append(ReuseRegion(region.name, port.value, slot, _moved(port, nodes)))
            elif port.exit in read:
                passes.append(BypassRegion(region.name, _entry(port, nodes), port.exit))
    return tuple(passes)


def _read(key: VariantKey, known: dict[str, Region], nodes: dict[str, fx.Node]) -> set[str]:
    """The nodes that something still reads once the actions are carried out."""
    needs: dict[str, list[str]] = {}
    for name, action in key.actions:
        for port in known[name].ports:
            if action.kind == "bypass":
                needs[port.exit] = [_entry(port, nodes)]
            else:
                needs[port.value] = [_moved(port, nodes)] if port.form == "difference" else []
    [output] = (node for node in nodes.values() if node.op == "output")
    waiting = [node.name for node in output.all_input_nodes]
    for name in key.writes:
        for port in known[name].ports:
            waiting += [port.value, *filter(None, [_moved(port, nodes)])]
    found = set(waiting)
    while waiting:
        name = waiting.pop()
        sources = needs.get(name, [node.name for node in nodes[name].all_input_nodes])
        waiting += (source for source in sources if source not in found)
        found.update(sources)
    return found


def _moved(port: Port, nodes: dict[str, fx.Node]) -> str:
    """What the slot is counted from: the entry, where it holds a difference."""
    return _entry(port, nodes) if port.form == "difference" else ""


def _entry(port: Port, nodes: dict[str, fx.Node]) -> str:
    """The entry; one off the stream may come from the prologue."""
    entry = port.entry or ""
    return entry if entry in nodes else f"prologue_{entry}"
