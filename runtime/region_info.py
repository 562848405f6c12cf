"""What a plan needs to know of a region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RegionKind = Literal["block", "chain", "level", "core"]


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
    """

    name: str
    kind: RegionKind
    parent: str | None
    residual: bool
    slot_bytes: int
    flops: int
