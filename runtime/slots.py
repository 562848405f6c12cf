"""The slots of one stream: what earlier steps left for later ones."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from .errors import StaleSlotError, Turbo4DError
from .extrapolation import predict

_NEWEST = (1.0,)


@dataclass(frozen=True)
class _Value:
    tensors: tuple[Tensor, ...]
    step: int


class Slots:
    """The last values of each region, each with the step that wrote it.

    A region whose cut has several values has several tensors in its slot; it is then named once
    for each, in their order. Nothing is copied: what is read is the tensor that was written, unless
    it is extrapolated from several.

    With `TURBO4D_POISON=1` in the environment a value that is let go is first filled with NaN, so
    that whoever still reads its memory is found out.
    """

    def __init__(self) -> None:
        self._slots: dict[str, tuple[_Value, ...]] = {}  # the newest last; none is empty
        self._poison = os.environ.get("TURBO4D_POISON") == "1"

    def __len__(self) -> int:
        return len(self._slots)

    def missing(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the names that nothing was written for."""
        return tuple(name for name in names if name not in self._slots)

    def read(
        self,
        names: Sequence[str],
        step: int,
        max_age: int,
        mixes: Mapping[str, Sequence[float]] | None = None,
    ) -> list[Tensor]:
        """The tensors under these names; none may be missing.

        Args:
            names: of regions, each as often as its slot has tensors.
            step: that reads.
            max_age: steps that the newest value may be old.
            mixes: for a region that is extrapolated the weights of its last values, oldest first.

        Raises:
            StaleSlotError: where one was written more than `max_age` steps before `step`.
            Turbo4DError: where a slot holds more or fewer tensors than it is named times.
        """
        left: dict[str, Iterator[Tensor]] = {}
        for name, times in Counter(names).items():
            newest = self._slots[name][-1]
            if step - newest.step > max_age:
                raise StaleSlotError(
                    f"slot {name!r} is {step - newest.step} steps old at step {step}; the plan "
                    f"allows {max_age}. Refresh at step {newest.step + max_age} or raise max_age."
                )
            if len(newest.tensors) != times:
                raise Turbo4DError(
                    f"slot {name!r} holds {len(newest.tensors)} tensors and {times} are read; the "
                    "engines that write and read it disagree."
                )
            left[name] = iter(
                self._mixed(name, mixes[name] if mixes and name in mixes else _NEWEST)
            )
        return [next(left[name]) for name in names]

    def write(self, names: Sequence[str], tensors: Sequence[Tensor], step: int) -> None:
        """Keeps the tensors under the names, beside what was there until `keep` lets that go."""
        written: dict[str, list[Tensor]] = {}
        for name, tensor in zip(names, tensors, strict=True):
            # A slot that remembers how it was computed would keep every step's graph alive.
            own = tensor.detach() if tensor.requires_grad else tensor
            written.setdefault(name, []).append(own)
        for name, own in written.items():
            self._slots[name] = (*self._slots.get(name, ()), _Value(tuple(own), step))

    def latest(self, name: str, count: int, step: int) -> tuple[tuple[Tensor, ...], ...]:
        """The newest values of a slot that this step wrote, the newest last; else none.

        Args:
            name: of the region.
            count: how many, where there are as many.
            step: that ran last.
        """
        values = self._slots.get(name, ())
        if not values or values[-1].step != step:
            return ()
        return tuple(value.tensors for value in values[-count:])

    def steps(self, name: str) -> tuple[int, ...]:
        """The steps that wrote what a slot holds, the newest last."""
        return tuple(value.step for value in self._slots.get(name, ()))

    def ages(self, names: Iterable[str], step: int) -> Mapping[str, int]:
        """How many steps ago each of the names was written last, those that were."""
        return {name: step - self._slots[name][-1].step for name in names if name in self._slots}

    def keep(self, counts: Mapping[str, int]) -> None:
        """Lets go of all but the newest values of each region, as many as it is named with."""
        for name, values in [*self._slots.items()]:
            kept = counts.get(name, 0)
            if len(values) > kept:
                self._let_go(values[: len(values) - kept])
                if kept:
                    self._slots[name] = values[-kept:]
                else:
                    del self._slots[name]

    def discard(self, names: Iterable[str]) -> None:
        """Lets go of all that is held for these regions."""
        self.keep({name: len(self._slots[name]) for name in self._slots.keys() - {*names}})

    def drop(self) -> None:
        """Lets all go."""
        self.keep({})

    def size_bytes(self) -> int:
        """What the slots hold."""
        values = (value for slot in self._slots.values() for value in slot)
        tensors = (tensor for value in values for tensor in value.tensors)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def _mixed(self, name: str, mix: Sequence[float]) -> Sequence[Tensor]:
        values = self._slots[name][-len(mix) :]
        if len(values) == 1:
            return values[0].tensors
        ports = zip(*(value.tensors for value in values), strict=True)
        return [predict(port, mix) for port in ports]

    def _let_go(self, values: Iterable[_Value]) -> None:
        if not self._poison:
            return
        for value in values:
            for tensor in value.tensors:
                if tensor.is_floating_point() or tensor.is_complex():
                    tensor.fill_(float("nan"))
