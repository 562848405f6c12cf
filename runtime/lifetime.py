"""How long one value of a slot is needed, and at which steps it lies on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest


@dataclass(frozen=True)
class Lifetime:
    """One value of a slot, from the step that writes it to its last reader.

    Args:
        slot: its name.
        written: the step that writes it.
        reads: the steps that read it, rising; at least one.
    """

    slot: str
    written: int
    reads: tuple[int, ...]

    @property
    def last_read(self) -> int:
        """The step after which it is let go."""
        return self.reads[-1]

    def holds(self, step: int) -> bool:
        """Whether it is held while a step runs."""
        return self.written <= step <= self.last_read

    def next_read(self, after: int) -> int | None:
        """The first step beyond this one that reads it."""
        return next((read for read in self.reads if read > after), None)


def held_values(
    lifetimes: Sequence[Lifetime], running: Sequence[bool], *, offload: bool = False
) -> tuple[tuple[Lifetime, ...], ...]:
    """What lies on the device while each step runs: what it reads and writes, and what waits.

    Args:
        lifetimes: of one stream's values.
        running: per step whether the stream runs then.
        offload: whether what waits is kept on the host. What the next step of the stream reads is
            fetched while this one computes, so it lies on the device already.

    Returns:
        The values per step; where the stream does not run, what lies there meanwhile.
    """
    held: list[list[Lifetime]] = [[] for _ in running]
    steps = [step for step, runs in enumerate(running) if runs]
    upcoming: dict[int, int | None] = dict(zip_longest(steps, steps[1:]))
    for each in lifetimes:
        needed = False
        for step in range(each.written, each.last_read + 1):
            if step in upcoming:
                needed = step == each.written or not {step, upcoming[step]}.isdisjoint(each.reads)
            if needed or not offload:
                held[step].append(each)
    return tuple(tuple(values) for values in held)
