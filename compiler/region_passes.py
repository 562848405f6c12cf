"""From a row of the plan to the passes that carry it out on the regions of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from turbo4d.passes import BypassRegion, FoldSingleKeyAttention, Pass, RecordSlot, ReuseRegion
from turbo4d.passes.base import slot_name

if TYPE_CHECKING:
    from torch import fx
    from turbo4d.runtime.plan import VariantKey

    from .regions import Region


def passes_for(key: VariantKey, regions: Sequence[Region], graph: fx.Graph) -> tuple[Pass, ...]:
    """The passes of a variant, in the order of `passes.ALL_PASSES`.

    Args:
        key: actions and writes; names only regions that exist.
        regions: of the canonical graph.
        graph: the canonical graph.
    """
    known = {region.name: region for region in regions}
    position = {node.name: index for index, node in enumerate(graph.nodes)}
    chosen: dict[str, list[Region]] = {"reuse": [], "bypass": []}
    for name, action in key.actions:
        chosen[action.kind].append(known[name])
    last_first = sorted(chosen["bypass"], key=lambda region: -position[region.exit])
    first_first = sorted(chosen["reuse"], key=lambda region: position[region.value])
    return (
        *(RecordSlot(name, known[name].value) for name in key.writes),
        *(BypassRegion(region.name, region.entry, region.exit) for region in last_first),
        *(ReuseRegion(r.name, r.value, slot_name(r.name)) for r in first_first),
        *((FoldSingleKeyAttention(),) if key.exact else ()),
    )
