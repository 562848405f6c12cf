"""Where every slot lies: one arena per stream, in which slots that are never held at once share.

A slot keeps its place throughout, so that an engine finds it at one address at every step. Two
slots conflict where the values of both are held at one step; finding the least arena is the problem
of dynamic storage allocation, which is NP-hard for sizes that differ. First fit is tried in three
orders and the smallest arena kept (Gergov, "Algorithms for Compile-Time Memory Optimization",
1999, bounds such orders).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import PlanError
from .lifetime import Lifetime
from .plan import Plan
from .plan_check import PlanCheck

# What CUDA's and TensorRT's kernels ask of an address.
ALIGNMENT = 256


@dataclass(frozen=True)
class Place:
    """Where the values of one slot lie in its stream's arena.

    Args:
        offset: of the first value.
        parts: offset of each tensor of a value within it.
        value_bytes: from one value to the next.
        values: how many there is room for.
    """

    offset: int
    parts: tuple[int, ...]
    value_bytes: int
    values: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.value_bytes * self.values


@dataclass(frozen=True)
class Arena:
    """The places of one stream's slots.

    Args:
        places: by slot.
        size_bytes: of all.
    """

    places: Mapping[str, Place]
    size_bytes: int


@dataclass(frozen=True)
class MemoryPlan:
    """What a proven plan's slots take, before anything runs.

    Args:
        check: the plan's proof.
        arenas: per stream.
    """

    check: PlanCheck
    arenas: Mapping[str, Arena]

    @property
    def arena_bytes(self) -> int:
        """Of the arenas of all streams, one behind the other."""
        return sum(arena.size_bytes for arena in self.arenas.values())

    @property
    def live_bytes_by_step(self) -> list[int]:
        """What the slots of all streams hold while each step runs, if all run it together."""
        return [sum(at) for at in zip(*self.check.held_bytes.values(), strict=True)]

    def to_json(self, bound: int | None) -> dict[str, Any]:
        """The plan of memory as plain values.

        Args:
            bound: on the bytes of all slots, None where there is none.
        """
        slots: list[dict[str, Any]] = []
        base = 0
        for stream, arena in self.arenas.items():
            lifetimes = self.check.lifetimes[stream]
            for each, index in zip(lifetimes, _indices(lifetimes), strict=True):
                place = arena.places[each.slot]
                slots.append(
                    {
                        "stream": stream,
                        "region": each.slot,
                        "written": each.written,
                        "last_read": each.last_read,
                        "offset": base + place.offset + index * place.value_bytes,
                        "bytes": self.check.slot_bytes[each.slot],
                        "storage": self.check.storage.get(each.slot, "compute"),
                    }
                )
            base += arena.size_bytes
        return {
            "live_bytes_by_step": self.live_bytes_by_step,
            "peak_bytes": self.check.peak_bytes,
            "bound": bound,
            "arena_bytes": self.arena_bytes,
            "slots": slots,
        }


def memory_plan(check: PlanCheck) -> MemoryPlan:
    """Gives every slot of a proven plan its place."""
    arenas: dict[str, Arena] = {}
    for stream, lifetimes in check.lifetimes.items():
        held: dict[str, dict[int, int]] = {}
        for each in lifetimes:
            steps = held.setdefault(each.slot, {})
            for step in range(each.written, each.last_read + 1):
                steps[step] = steps.get(step, 0) + 1
        arenas[stream] = arena_of(
            {slot: check.slot_parts[slot] for slot in held},
            {slot: max(steps.values()) for slot, steps in held.items()},
            {slot: frozenset(steps) for slot, steps in held.items()},
        )
    return MemoryPlan(check, arenas)


def arena_of(
    parts: Mapping[str, tuple[int, ...]],
    values: Mapping[str, int],
    steps: Mapping[str, frozenset[int]],
) -> Arena:
    """Places for slots; those that are never held at once may share bytes.

    Args:
        parts: per slot the bytes of each tensor of a value.
        values: per slot how many values it holds at once.
        steps: per slot those at which it holds any.
    """
    offsets = {slot: _offsets(sizes) for slot, sizes in parts.items()}
    sizes = {slot: offsets[slot][-1] * values[slot] for slot in parts}
    orders: tuple[Callable[[str], Any], ...] = (
        lambda slot: (-sizes[slot], slot),
        lambda slot: (-len(steps[slot]), -sizes[slot], slot),
        lambda slot: (min(steps[slot], default=0), -sizes[slot], slot),
    )
    found = [_first_fit(sorted(parts, key=order), sizes, steps) for order in orders]
    best = min(found, key=lambda starts: _end(starts, sizes))
    places = {
        slot: Place(best[slot], offsets[slot][:-1], offsets[slot][-1], values[slot])
        for slot in sorted(parts)
    }
    return Arena(places, _end(best, sizes))


def refuse_arena(plan: Plan, stream: str, arena: Arena, others_bytes: int) -> None:
    """Refuses an arena beyond the plan's bound.

    Args:
        plan: with the bound.
        stream: whose arena it is.
        arena: of the stream.
        others_bytes: of the arenas of other streams.

    Raises:
        PlanError: naming the stream and its largest slot.
    """
    total = arena.size_bytes + others_bytes
    if plan.max_cache_bytes is None or total <= plan.max_cache_bytes:
        return
    largest = max(arena.places, key=lambda slot: arena.places[slot].end - arena.places[slot].offset)
    place = arena.places[largest]
    raise PlanError(
        f"plan {plan.name!r}, stream {stream!r}, region {largest!r}: fixed slots take {total} "
        f"bytes, {place.end - place.offset} of them this one's; max_cache_bytes allows "
        f"{plan.max_cache_bytes}. Raise it, reuse fewer regions or leave fixed_slots off."
    )


def _first_fit(
    order: Sequence[str], sizes: Mapping[str, int], steps: Mapping[str, frozenset[int]]
) -> dict[str, int]:
    """Each slot at the lowest offset at which nothing that it meets lies."""
    starts: dict[str, int] = {}
    for slot in order:
        met = [other for other in starts if not steps[other].isdisjoint(steps[slot])]
        at = 0
        for other in sorted(met, key=starts.__getitem__):
            if starts[other] - at >= sizes[slot]:
                break
            at = max(at, starts[other] + sizes[other])
        starts[slot] = at
    return starts


def _end(starts: Mapping[str, int], sizes: Mapping[str, int]) -> int:
    return max((at + sizes[slot] for slot, at in starts.items()), default=0)


def _offsets(parts: Sequence[int]) -> tuple[int, ...]:
    """Where each tensor begins, and where the value ends."""
    found = [0]
    for part in parts:
        found.append(-(-(found[-1] + part) // ALIGNMENT) * ALIGNMENT)
    return tuple(found)


def _indices(lifetimes: Sequence[Lifetime]) -> list[int]:
    """Of each value which of its slot's places it takes: the lowest that is free."""
    taken: dict[str, dict[int, int]] = {}  # slot -> index -> last step
    found: list[int] = []
    for each in lifetimes:
        ends = taken.setdefault(each.slot, {})
        index = next(i for i in range(len(ends) + 1) if ends.get(i, -1) < each.written)
        ends[index] = each.last_read
        found.append(index)
    return found
