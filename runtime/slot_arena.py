"""Fixed slots: one buffer in which every slot has an address that does not move."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .errors import MemoryPlanError
from .memory_plan import Arena
from .slot_storage import Stored, dense_stride


class SlotArena:
    """The memory of one stream's slots, taken at the first write and kept for all runs.

    What a step writes is copied to its place. What an engine reads lies at one address at every
    step: at the slot's place itself, or, where it is stored smaller, extrapolated, or one of
    several values, in a buffer of its own that is filled before each call.

    Args:
        arena: where each slot lies.
    """

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._buffer: Tensor | None = None
        self._read: dict[tuple[str, int], Tensor] = {}

    @property
    def size_bytes(self) -> int:
        """What it takes, whatever it holds."""
        return self._arena.size_bytes

    @property
    def read_bytes(self) -> int:
        """What the buffers beside it take that are filled before each call."""
        return sum(each.untyped_storage().nbytes() for each in self._read.values())

    def put(
        self, slot: str, stored: Sequence[Stored], taken: Collection[int]
    ) -> tuple[tuple[Stored, ...], int]:
        """Copies a value to a place of its slot.

        Args:
            slot: its name.
            stored: its tensors.
            taken: the places that its other values take.

        Returns:
            Its tensors there, and which place it is.

        Raises:
            MemoryPlanError: where no place is free, or the value is larger than it.
        """
        place = self._arena.places[slot]
        index = next((i for i in range(place.values) if i not in taken), None)
        tensors = [tensor for each in stored for tensor in each.tensors]
        ends = (*place.parts[1:], place.value_bytes)
        rooms = [end - start for start, end in zip(place.parts, ends, strict=True)]
        if (
            index is None
            or len(tensors) != len(rooms)
            or any(t.nbytes > room for t, room in zip(tensors, rooms, strict=True))
        ):
            raise MemoryPlanError(
                f"slot {slot!r}: its value of {[t.nbytes for t in tensors]} bytes does not fit its "
                f"{place.values} places of {rooms}, of which {len(taken)} are taken. The engine's "
                "slots are larger than those it was planned for."
            )
        base = place.offset + index * place.value_bytes
        starts = iter(base + part for part in place.parts)
        kept: list[Stored] = []
        for each in stored:
            payload = self._copied(each.payload, next(starts))
            scales = None if each.scales is None else self._copied(each.scales, next(starts))
            kept.append(replace(each, payload=payload, scales=scales))
        return tuple(kept), index

    def settle(self, slot: str, tensors: Sequence[Tensor], *, raw: bool) -> Sequence[Tensor]:
        """What an engine reads of a slot, at its fixed address.

        Args:
            slot: its name.
            tensors: the values, one per port.
            raw: whether they are what the slot holds, neither decoded nor extrapolated.
        """
        if raw and self._arena.places[slot].values == 1:
            return tensors
        for port, tensor in enumerate(tensors):
            if (slot, port) not in self._read:
                self._read[slot, port] = torch.empty_like(tensor)
        return [self._read[slot, port].copy_(tensor) for port, tensor in enumerate(tensors)]

    def _copied(self, tensor: Tensor, start: int) -> Tensor:
        if self._buffer is None:
            size = self._arena.size_bytes
            self._buffer = torch.empty(size, dtype=torch.uint8, device=tensor.device)
        flat = self._buffer[start : start + tensor.nbytes].view(tensor.dtype)
        return torch.as_strided(flat, tensor.shape, dense_stride(tensor)).copy_(tensor)
