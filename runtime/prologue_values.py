"""What the prologue gave for one stream's conditioning."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import Tensor

from .engine_shelf import CallCounts, EngineShelf


class PrologueValues:
    """Computed when they are first asked for, kept until they are dropped.

    As slots, they are filled with NaN when they are let go where `TURBO4D_POISON=1` is set; those
    that are views of an argument are left alone.

    Args:
        shelf: holds the prologue, if there is one.
        counts: where its calls are counted.
    """

    def __init__(self, shelf: EngineShelf, counts: CallCounts) -> None:
        self._shelf = shelf
        self._counts = counts
        self._values: tuple[Tensor, ...] | None = None
        self._poison = os.environ.get("TURBO4D_POISON") == "1"
        self._given: set[int] = set()  # addresses of the arguments' storages
        self.size_bytes = 0

    @property
    def held(self) -> bool:
        """Whether there is anything that could be out of date."""
        return bool(self._values)

    def get(self, args: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The values; an exception in the prologue leaves none behind.

        Args:
            args: all flat arguments, in the signature's order.
        """
        if self._values is None:
            prologue = self._shelf.prologue()
            values = () if prologue is None else self._counts.call_prologue(prologue, args)
            # As of slots: what remembers how it was computed keeps a graph alive.
            self._values = tuple(v.detach() if v.requires_grad else v for v in values)
            self.size_bytes = _storage_bytes(self._values)
            if self._poison:
                self._given = {arg.untyped_storage().data_ptr() for arg in args}
        return self._values

    def drop(self) -> None:
        """Lets all go; the next `get` computes them anew."""
        if self._poison:
            for value in self._values or ():
                shared = value.untyped_storage().data_ptr() in self._given
                if value.is_floating_point() and not shared:
                    value.fill_(float("nan"))
        self._values, self.size_bytes = None, 0


def _storage_bytes(values: Sequence[Tensor]) -> int:
    """Of all storage, each once: several values may be views of one."""
    storages = (value.untyped_storage() for value in values)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
