"""One value of a slot, and where it is: on the device, on the host, or on its way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import Tensor

from .offload import Arrival, Transfers
from .slot_storage import Stored


class SlotValue:
    """What one step wrote to a slot. Nobody writes into it, so a copy of it stays true.

    Args:
        stored: its tensors, on the device.
        step: that wrote it.
        index: which of its slot's fixed places it takes, 0 where there are none.
    """

    def __init__(self, stored: Sequence[Stored], step: int, index: int = 0) -> None:
        self.step = step
        self.index = index
        self.stored = tuple(stored)  # its tensors are on the host where `waits`
        self._host: tuple[Stored, ...] | None = None
        self._arrival: Arrival | None = None

    @property
    def waits(self) -> bool:
        """Whether it is on the host alone."""
        return self.stored is self._host and self._arrival is None

    @property
    def device_bytes(self) -> int:
        """What it takes on the device, there or on its way."""
        return 0 if self.waits else sum(each.size_bytes for each in self.stored)

    @property
    def host_bytes(self) -> int:
        """What it takes on the host."""
        return sum(each.size_bytes for each in self._host or ())

    def stow(self, transfers: Transfers) -> None:
        """Leaves the device, copied to the host if it was not before."""
        if self._host is None:
            self._host = _with(self.stored, map(transfers.to_host, _tensors(self.stored)))
        self.stored, self._arrival = self._host, None

    def fetch(self, transfers: Transfers) -> None:
        """Begins to come back to the device."""
        if self.waits:
            self._arrival = transfers.to_device(_tensors(self.stored))

    def read(self, transfers: Transfers | None) -> tuple[Stored, ...]:
        """Its tensors, on the device."""
        if transfers is not None:
            self.fetch(transfers)
        if self._arrival is not None:
            self.stored, self._arrival = _with(self.stored, self._arrival.wait()), None
        return self.stored

    def spoil(self) -> None:
        """Fills it with NaN, so that whoever still reads it is found out."""
        for stored in (*self.stored, *(self._host or ())):
            tensor = stored.tensors[-1]  # the scales, where there are any, spoil all
            if tensor.is_floating_point() or tensor.is_complex():
                tensor.fill_(float("nan"))


def _tensors(stored: Sequence[Stored]) -> list[Tensor]:
    return [tensor for each in stored for tensor in each.tensors]


def _with(stored: Sequence[Stored], tensors: Iterable[Tensor]) -> tuple[Stored, ...]:
    """The same with other tensors, in their order."""
    left = iter(tensors)
    return tuple(
        replace(each, payload=next(left), scales=None if each.scales is None else next(left))
        for each in stored
    )
