"""What a plan needs to know of a region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

RegionKind = Literal["block", "chain", "level", "core"]
_RELEVANCE = ".relevance"


def relevance_slot(region: str) -> str:
    """Name of the slot that says which of a region's tokens matter, beside the region's own."""
    return f"{region}{_RELEVANCE}"


def slot_region(slot: str) -> str:
    """The region that writes a slot, its own or that of its relevance."""
    return slot.removesuffix(_RELEVANCE)


@dataclass(frozen=True)
class RegionInfo:
    """What a plan needs to know of a region.

    Args:
        name: unique in the model.
        kind: block < chain < level < core.
        parent: name of the smallest region that holds this one.
        residual: whether its slot holds exit minus entry, else the exit value.
        slot_bytes: of one slot.
        flops: of one execution.
        relevance: the region whose attention says which tokens matter where this one is pruned,
            None where it cannot be.
        relevance_bytes: of the slot that holds that.
        prunable_flops: those of `flops` that fall as fewer tokens are kept.
        unprunable: why it cannot be pruned.
    """

    name: str
    kind: RegionKind
    parent: str | None
    residual: bool
    slot_bytes: int
    flops: int
    relevance: str | None = None
    relevance_bytes: int = 0
    prunable_flops: int = 0
    unprunable: str = "its tokens are not known"


def bytes_of(slot: str, regions: Mapping[str, RegionInfo]) -> int:
    """What one value of a slot holds: a region's own, or of its relevance.

    Args:
        slot: its name.
        regions: by name.
    """
    if slot in regions:
        return regions[slot].slot_bytes
    region = slot_region(slot)
    return next(each.relevance_bytes for each in regions.values() if each.relevance == region)
