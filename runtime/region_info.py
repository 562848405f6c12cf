"""What a plan needs to know of a region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch

from .errors import PlanError
from .slot_storage import stored_parts

RegionKind = Literal["block", "chain", "level", "core", "step"]
SlotForm = tuple[tuple[int, ...], torch.dtype]
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
        kind: block < chain < level < core < step.
        parent: name of the smallest region that holds this one.
        residual: whether its slot holds exit minus entry, else the exit value.
        slot_bytes: of one slot in the compute dtype.
        flops: of one execution.
        relevance: the region whose attention says which tokens matter where this one is pruned,
            None where it cannot be.
        relevance_bytes: of the slot that holds that.
        prunable_flops: those of `flops` that fall as fewer tokens are kept.
        unprunable: why it cannot be pruned.
        slot_forms: shape and dtype of each tensor of its slot; empty where they are not known.
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
    slot_forms: tuple[SlotForm, ...] = ()


def bytes_of(slot: str, regions: Mapping[str, RegionInfo], storage: Mapping[str, str]) -> int:
    """What one value of a slot holds; see `parts_of`."""
    return sum(parts_of(slot, regions, storage))


def parts_of(
    slot: str, regions: Mapping[str, RegionInfo], storage: Mapping[str, str]
) -> tuple[int, ...]:
    """What each tensor of one value of a slot holds, in bytes.

    A region's own slot is as it is stored, with scales as tensors of their own; that of its
    relevance is always in the compute dtype.

    Args:
        slot: its name.
        regions: by name.
        storage: region -> storage, as a plan has it.

    Raises:
        PlanError: where the storage is unknown, or the slot's shapes are not known and it needs
            them.
    """
    if slot in regions:
        kept = storage.get(slot, "compute")
        if kept == "compute":
            sizes = [prod(shape) * dtype.itemsize for shape, dtype in regions[slot].slot_forms]
            return tuple(sizes) or (regions[slot].slot_bytes,)
        if not regions[slot].slot_forms:
            raise PlanError(
                f"region {slot!r}: its storage is {kept!r} and the shapes of its slot are not "
                "known; leave it in 'compute'."
            )
        forms = regions[slot].slot_forms
        return tuple(part for form in forms for part in stored_parts(*form, kept))
    region = slot_region(slot)
    return next((each.relevance_bytes,) for each in regions.values() if each.relevance == region)
