"""The slots of one stream: what earlier steps left for later ones."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from torch import Tensor

from .errors import StaleSlotError, Turbo4DError
from .extrapolation import predict, weighted
from .offload import Transfers, transfers_for
from .slot_arena import SlotArena
from .slot_storage import Stored, decode, encode
from .slot_value import SlotValue

_NEWEST = (1.0,)
Summed = Callable[[Sequence[Tensor], Sequence[float]], Tensor]


class Slots:
    """The last values of each region, each with the step that wrote it.

    A region whose cut has several values has several tensors in its slot; it is then named once
    for each, in their order. Nothing is copied: what is read is the tensor that was written, unless
    it is extrapolated from several or stored in fewer bits.

    With `TURBO4D_POISON=1` in the environment a value that is let go is first filled with NaN, so
    that whoever still reads its memory is found out.

    Args:
        storage: region -> storage, of those that are not kept in the compute dtype.
        arena: where each slot has an address that does not move; None where it need not have.
        offload: whether values that wait may be moved to the host.
    """

    def __init__(
        self,
        storage: Mapping[str, str] = MappingProxyType({}),
        arena: SlotArena | None = None,
        *,
        offload: bool = False,
    ) -> None:
        self._storage = storage
        self._arena = arena
        self.offload = offload
        self._transfers: Transfers | None = None
        self._slots: dict[str, tuple[SlotValue, ...]] = {}  # the newest last; none is empty
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
        fitted: Collection[str] = (),
    ) -> list[Tensor]:
        """The tensors under these names; none may be missing.

        Args:
            names: of regions, each as often as its slot has tensors.
            step: that reads.
            max_age: steps that the newest value may be old.
            mixes: for a region that is extrapolated the weights of its last values, oldest first.
            fitted: the regions whose weights are a plan's and may add up to anything.

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
            if len(newest.stored) != times:
                raise Turbo4DError(
                    f"slot {name!r} holds {len(newest.stored)} tensors and {times} are read; the "
                    "engines that write and read it disagree."
                )
            mix = mixes[name] if mixes and name in mixes else _NEWEST
            left[name] = iter(self._mixed(name, mix, weighted if name in fitted else predict))
        return [next(left[name]) for name in names]

    def write(self, names: Sequence[str], tensors: Sequence[Tensor], step: int) -> None:
        """Keeps the tensors under the names, beside what was there until `keep` lets that go.

        Raises:
            MemoryPlanError: where they do not fit their fixed places.
            OptionError: where they are to wait on the host and are on no device that has one.
        """
        if self.offload and self._transfers is None and tensors:
            self._transfers = transfers_for(tensors[0].device)
        written: dict[str, list[Stored]] = {}
        for name, tensor in zip(names, tensors, strict=True):
            # A slot that remembers how it was computed would keep every step's graph alive.
            own = tensor.detach() if tensor.requires_grad else tensor
            stored = encode(own, self._storage.get(name, "compute"))
            written.setdefault(name, []).append(stored)
        for name, own in written.items():
            before = self._slots.get(name, ())
            kept, index = tuple(own), 0
            if self._arena is not None:
                kept, index = self._arena.put(name, own, [value.index for value in before])
            self._slots[name] = (*before, SlotValue(kept, step, index))

    def newest(self, name: str) -> Tensor | None:
        """The first tensor of a slot's newest value, None where it holds nothing."""
        values = self._slots.get(name)
        return decode(values[-1].read(self._transfers)[0]) if values else None

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

    def fetch(self, counts: Mapping[str, int]) -> None:
        """Begins to bring the newest values of each slot to the device, where they wait elsewhere.

        Args:
            counts: per slot of how many values.
        """
        if self._transfers is not None:
            for name, count in counts.items():
                for value in self._slots.get(name, ())[-count:] if count else ():
                    value.fetch(self._transfers)

    def stow(self, counts: Mapping[str, int]) -> None:
        """Moves to the host all but the newest values of each slot, where offload was asked for.

        Args:
            counts: per slot how many values stay.

        """
        if self._transfers is not None:
            for name, values in self._slots.items():
                for value in values[: max(0, len(values) - counts.get(name, 0))]:
                    value.stow(self._transfers)

    def size_bytes(self) -> int:
        """What the slots take on the device."""
        if self._arena is not None:
            return self._arena.size_bytes
        return sum(value.device_bytes for slot in self._slots.values() for value in slot)

    def host_bytes(self) -> int:
        """What those take that were moved to the host."""
        return sum(value.host_bytes for slot in self._slots.values() for value in slot)

    def _mixed(self, name: str, mix: Sequence[float], summed: Summed) -> Sequence[Tensor]:
        values = [value.read(self._transfers) for value in self._slots[name][-len(mix) :]]
        decoded = [[decode(stored) for stored in value] for value in values]
        found = decoded[0]
        plain = len(decoded) == 1 and summed is predict
        if not plain:
            found = [summed(port, mix) for port in zip(*decoded, strict=True)]
        if self._arena is None:
            return found
        raw = plain and all(stored.scales is None for stored in values[0])
        return self._arena.settle(name, found, raw=raw)

    def _let_go(self, values: Iterable[SlotValue]) -> None:
        if self._poison:
            for value in values:
                value.spoil()
