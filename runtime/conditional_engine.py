"""One engine in the place of all of a plan's: what tells it which variant to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod

import torch
from torch import Tensor

from .engine import Engine
from .variant_key import VariantKey

Form = tuple[tuple[int, ...], torch.dtype]


class SharedEngine:
    """The engine that holds every variant.

    Args:
        engine: takes its slots, then one boolean scalar for each of `flags`; gives all slots.
        flags: regions that it skips where their flag is true.
        slots: shape and dtype of each slot it takes.
    """

    def __init__(self, engine: Engine, flags: tuple[str, ...], slots: Sequence[Form]) -> None:
        self.engine = engine
        self.flags = flags
        self._slots = slots
        self._zeros: dict[torch.device, list[Tensor]] = {}

    def zeros(self, device: torch.device) -> list[Tensor]:
        """A zero for each slot; those of one dtype share memory, which nobody writes."""
        if device not in self._zeros:
            sizes: dict[torch.dtype, int] = {}
            for shape, dtype in self._slots:
                sizes[dtype] = max(sizes.get(dtype, 0), prod(shape))
            shared = {d: torch.zeros(size, dtype=d, device=device) for d, size in sizes.items()}
            self._zeros[device] = [shared[d][: prod(shape)].view(shape) for shape, d in self._slots]
        return self._zeros[device]


class ConditionalEngine:
    """One variant of a shared engine.

    A region that is reused is skipped and its slot stands for it. One that is bypassed is skipped
    too, and a zero stands for it; so it does where a slot is taken that this variant does not read.

    Args:
        key: of the variant.
        reads: as of any engine.
        writes: likewise.
        shared: gives the engine; asked at each call, since it may be built anew for more variants.
    """

    def __init__(
        self,
        key: VariantKey,
        reads: tuple[str, ...],
        writes: tuple[str, ...],
        shared: Callable[[], SharedEngine],
    ) -> None:
        self.key = key
        self.reads = reads
        self.writes = writes
        self._shared = shared
        self._skipped = frozenset(name for name, _ in key.actions)
        self._flags: dict[SharedEngine, tuple[Tensor, ...]] = {}

    @property
    def shared(self) -> SharedEngine:
        """The engine that it is a variant of, built if need be."""
        return self._shared()

    def __call__(
        self, args: Sequence[Tensor], prologue: Sequence[Tensor], slots_in: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Run the shared engine as this variant."""
        shared = self._shared()
        if shared not in self._flags:
            flags = tuple(torch.tensor(name in self._skipped) for name in shared.flags)
            self._flags = {shared: flags}
        engine = shared.engine
        left = _by_name(self.reads, slots_in)
        held = [
            next(left[name]) if name in left else zero
            for name, zero in zip(engine.reads, shared.zeros(args[-1].device), strict=True)
        ]
        outputs, made = engine(args, prologue, (*held, *self._flags[shared]))
        written = _by_name(engine.writes, made)
        return outputs, [next(written[name]) for name in self.writes]


def _by_name(names: Sequence[str], slots: Sequence[Tensor]) -> dict[str, Iterator[Tensor]]:
    found: dict[str, list[Tensor]] = {}
    for name, slot in zip(names, slots, strict=True):
        found.setdefault(name, []).append(slot)
    return {name: iter(held) for name, held in found.items()}
