"""The slots of one stream: what earlier steps left for later ones."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from .errors import StaleSlotError, Turbo4DError


@dataclass(frozen=True)
class _Slot:
    tensors: tuple[Tensor, ...]
    step: int


class Slots:
    """Cached tensors by region, each with the step that wrote it.

    A region whose cut has several values has several tensors in its slot; it is then named once
    for each, in their order. Nothing is copied: what is read is the tensor that was written.

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
            Turbo4DError: where a slot holds more or fewer tensors than it is named times.
        """
        for name, times in Counter(names).items():
            slot = self._slots[name]
            if step - slot.step > max_age:
                raise StaleSlotError(
                    f"slot {name!r} is {step - slot.step} steps old at step {step}; the plan "
                    f"allows {max_age}. Refresh at step {slot.step + max_age} or raise max_age."
                )
            if len(slot.tensors) != times:
                raise Turbo4DError(
                    f"slot {name!r} holds {len(slot.tensors)} tensors and {times} are read; the "
                    "engines that write and read it disagree."
                )
        left = {name: iter(self._slots[name].tensors) for name in names}
        return [next(left[name]) for name in names]

    def write(self, names: Sequence[str], tensors: Sequence[Tensor], step: int) -> None:
        """Keeps the tensors under the names, in place of what was there."""
        written: dict[str, list[Tensor]] = {}
        for name, tensor in zip(names, tensors, strict=True):
            # A slot that remembers how it was computed would keep every step's graph alive.
            own = tensor.detach() if tensor.requires_grad else tensor
            written.setdefault(name, []).append(own)
        for name, own in written.items():
            self._let_go(name)
            self._slots[name] = _Slot(tuple(own), step)

    def ages(self, names: Iterable[str], step: int) -> Mapping[str, int]:
        """How many steps ago each of the names was written, those that were."""
        return {name: step - self._slots[name].step for name in names if name in self._slots}

    def keep(self, names: Collection[str]) -> None:
        """Lets all others go."""
        for name in [name for name in self._slots if name not in names]:
            self._let_go(name)

    def drop(self) -> None:
        """Lets all go."""
        self.keep(())

    def size_bytes(self) -> int:
        """What the slots hold."""
        tensors = (tensor for slot in self._slots.values() for tensor in slot.tensors)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def _let_go(self, name: str) -> None:
        slot = self._slots.pop(name, None)
        if slot is not None and self._poison:
            for tensor in slot.tensors:
                if tensor.is_floating_point():
                    tensor.fill_(float("nan"))
