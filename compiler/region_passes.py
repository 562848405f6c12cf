"""From a row of the plan to the passes that carry it out on the regions of a graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from turbo4d.passes import (
    BypassRegion,
    Pass,
    PruneTokens,
    RecordRelevance,
    RecordSlot,
    ReuseRegion,
)
from turbo4d.passes.base import slot_name
from turbo4d.runtime.region_info import relevance_slot

if TYPE_CHECKING:
    from torch import fx
    from turbo4d.runtime.action import Action
    from turbo4d.runtime.plan import VariantKey

    from .pruning import Pruning
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
    passes: list[Pass] = [pass_ for name in key.writes for pass_ in _records(name, known, nodes)]
    steps: list[tuple[bool, int, Region, Action]] = []
    for name, action in key.actions:
        region = known[name]
        whole = all(port.value in read for port in region.ports)
        last = max(position[port.exit] for port in region.ports)
        steps.append((whole or not action.reads, -last, region, action))
    for _, _, region, action in sorted(steps, key=lambda step: step[:2]):
        ports = [*enumerate(region.ports)]
        if action.kind == "bypass":  # a port's entry may be the exit of the one before it, too
            ports.sort(key=lambda each: -position[each[1].exit])
        for number, port in ports:
            slot = slot_name(region.name) + (f"_{number}" if number else "")
            if action.kind == "reuse":
                passes.append(ReuseRegion(region.name, port.value, slot, _moved(port, nodes)))
            elif action.keep is not None and region.pruning is not None:
                passes.append(region.pruning.prune(region.name, port, slot, action.keep))
            elif port.exit in read:
                passes.append(BypassRegion(region.name, _entry(port, nodes), port.exit))
    return tuple(passes)


def slot_placeholders(passes: Sequence[Pass]) -> dict[str, str]:
    """The slot that stands behind each placeholder that passes add."""
    found: dict[str, str] = {}
    for pass_ in passes:
        if isinstance(pass_, (ReuseRegion, PruneTokens)):
            found[pass_.slot] = pass_.region
        if isinstance(pass_, PruneTokens):
            found[pass_.relevance] = relevance_slot(pass_.source)
    return found


def written_by(passes: Sequence[Pass]) -> tuple[str, ...]:
    """The slots that passes return, in order."""
    return tuple(
        relevance_slot(pass_.region) if isinstance(pass_, RecordRelevance) else pass_.region
        for pass_ in passes
        if isinstance(pass_, (RecordSlot, RecordRelevance))
    )


def source_of(slot: str, regions: Mapping[str, Region]) -> Pruning | None:
    """How the relevance under this name is written, None where it is no such slot."""
    known = (region.pruning for region in regions.values() if region.pruning is not None)
    return next((how for how in known if how.relevance == slot), None)


def _records(name: str, known: dict[str, Region], nodes: dict[str, fx.Node]) -> Iterator[Pass]:
    """What writes a slot: a region's own, or the one that says which of its tokens matter."""
    if name in known:
        for port in known[name].ports:
            yield RecordSlot(name, port.value, _moved(port, nodes))
    elif (how := source_of(name, known)) is not None:
        yield how.record()


def _read(key: VariantKey, known: dict[str, Region], nodes: dict[str, fx.Node]) -> set[str]:
    """The nodes that something still reads once the actions are carried out."""
    needs: dict[str, list[str]] = {}
    for name, action in key.actions:
        for port in known[name].ports:
            if action.kind == "prune":
                continue  # it reads its entry, as where it is computed
            if action.kind == "bypass":
                needs[port.exit] = [_entry(port, nodes)]
            else:
                needs[port.value] = [_moved(port, nodes)] if port.form == "difference" else []
    [output] = (node for node in nodes.values() if node.op == "output")
    waiting = [node.name for node in output.all_input_nodes]
    for pass_ in (pass_ for name in key.writes for pass_ in _records(name, known, nodes)):
        if isinstance(pass_, RecordSlot):
            waiting += [pass_.value, *filter(None, [pass_.entry])]
        elif isinstance(pass_, RecordRelevance):
            waiting += [node.name for node in nodes[pass_.attention].all_input_nodes]
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
