"""The slots of one stream: what earlier steps left for later ones."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from .errors import StaleSlotError


@dataclass(frozen=True)
class _Slot:
    tensor: Tensor
    step: int


class Slots:
    """Cached tensors by region, each with the step that wrote it.

    With `TURBO4D_POISON=1` in the environment a slot that is let go is first filled with NaN, so
    that whoever still reads its memory is found out.
    """

    def __init__(self) -> None:
        self._slots: dict[str, _Slot] = {}
        self._poison = os.environ.get("TURBO4D_POISON") == "1"

    def __len__(self) -> int:
        return len(self._slots)

    def missing(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the names that nothing was written for."""
        return tuple(name for name in names if name not in self._slots)

    def read(self, names: Sequence[str], step: int, max_age: int) -> list[Tensor]:
        """The tensors under these names; none may be missing.

        Raises:
            StaleSlotError: where one was written more than `max_age` steps before `step`.
        """
        slots = [self._slots[name] for name in names]
        for name, slot in zip(names, slots, strict=True):
            if step - slot.step > max_age:
                raise StaleSlotError(
                    f"slot {name!r} is {step - slot.step} steps old at step {step}; the plan "
                    f"allows {max_age}. Refresh at step {slot.step + max_age} or raise max_age."
                )
        return [slot.tensor for slot in slots]

    def write(self, names: Sequence[str], tensors: Sequence[Tensor], step: int) -> None:
        """Keeps the tensors under the names."""
        for name, tensor in zip(names, tensors, strict=True):
            self._let_go(name)
            # A slot that remembers how it was computed would keep every step's graph alive.
            self._slots[name] = _Slot(tensor.detach() if tensor.requires_grad else tensor, step)

    def keep(self, names: Collection[str]) -> None:
        """Lets all others go."""
        for name in [name for name in self._slots if name not in names]:
            self._let_go(name)

    def drop(self) -> None:
        """Lets all go."""
        self.keep(())

    def size_bytes(self) -> int:
        """What the slots hold."""
        tensors = (slot.tensor for slot in self._slots.values())
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def _let_go(self, name: str) -> None:
        slot = self._slots.pop(name, None)
        if slot is not None and self._poison and slot.tensor.is_floating_point():
            slot.tensor.fill_(float("nan"))
