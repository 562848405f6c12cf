"""paths: of one stream every plan that no other beats in both time and error, found all at once.

What a step may read depends on the steps before it through the newest sources of each slot set
alone. So of all beginnings that leave the same sources those stay that no other is as fast and as
exact as, and what is left after the last step is the fastest plan of every budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from turbo4d.compiler.calibrate.choices import Choice, Sources
    from turbo4d.compiler.calibrate.slot_sets import SlotSets

    Memory = tuple[Sources, ...]  # per slot set the steps that wrote what may still be read

MOST_MEMORIES = 20_000  # that beginnings of one length leave; past it the walk is given up
MOST_BEGINNINGS = 400_000  # past it those that err nearly alike count as one
_APART = 1 << 44  # more parts of error than any beginning has
Ints = Any  # numpy's int64 [beginnings]


@dataclass(frozen=True)
class Front:
    """Plans that no other beats, time rising and error falling.

    Args:
        ticks: of each.
        errors: of each, in parts.
        whole: whether nothing was left out.
    """

    ticks: Ints
    errors: Ints
    whole: bool
    _trail: Sequence[tuple[Ints, Ints]] = field(repr=False)
    _choices: Sequence[Sequence[Choice]] = field(repr=False)
    _ends: Ints = field(repr=False)

    def taken(self, at: int) -> tuple[tuple[str, int], ...]:
        """Move and order of each step of a plan.

        Args:
            at: its number.
        """
        index, found = int(self._ends[at]), list[tuple[str, int]]()
        for (parents, numbers), here in zip(
            reversed(self._trail), reversed(self._choices), strict=True
        ):
            choice = here[int(numbers[index])]
            found.append((choice.move, choice.order))
            index = int(parents[index])
        return tuple(reversed(found))


def front_of(
    choices: Sequence[Sequence[Choice]],
    sets: SlotSets,
    ticks: Mapping[str, int],
    budget: int,
) -> Front | None:
    """The plans of a stream that err no more than a budget.

    Args:
        choices: per step.
        sets: the slot sets that they read.
        ticks: per move what a step of it takes.
        budget: in parts.

    Returns:
        The plans; None where the steps before leave too much that may be read.
    """
    walk = _Walk(choices, sets)
    memories: list[Memory] = [((),) * len(sets.sets)]
    memory, spent, erred = (np.zeros(1, dtype=np.int64) for _ in range(3))
    trail: list[tuple[Ints, Ints]] = []
    whole = True
    for place, here in enumerate(choices):
        found: list[tuple[Ints, ...]] = []
        known: dict[Memory, int] = {}
        for number, choice in enumerate(here):
            to, cost = walk.step(place, choice, memories, known)
            if len(known) > MOST_MEMORIES:
                return None
            after, error = to[memory], erred + cost[memory]
            rows = np.flatnonzero((after >= 0) & (error <= budget))
            time = spent[rows] + ticks[choice.move]
            found.append((after[rows], time, error[rows], rows, np.full(len(rows), number)))
        columns = tuple(np.concatenate(column) for column in zip(*found, strict=True))
        kept, exact = _unbeaten(*columns[:3])
        memory, spent, erred, parents, numbers = (column[kept] for column in columns)
        trail.append((parents, numbers))
        memories, whole = [*known], whole and exact
    ends, exact = _unbeaten(np.zeros_like(memory), spent, erred)
    return Front(spent[ends], erred[ends], whole and exact, trail, choices, ends)


def joined(fronts: Sequence[Front]) -> tuple[Ints, Ints, Ints]:
    """The plans of several streams together that no other beats.

    Args:
        fronts: of each.

    Returns:
        Their times and errors, and per stream the number of its plan [plans, streams].
    """
    ticks, errors = (np.zeros(1, dtype=np.int64) for _ in range(2))
    parts = np.zeros((1, 0), dtype=np.int64)
    for front in fronts:
        time = (ticks[:, None] + front.ticks).ravel()
        error = (errors[:, None] + front.errors).ravel()
        kept, _ = _unbeaten(np.zeros_like(time), time, error)
        one, other = np.divmod(kept, len(front.ticks))
        ticks, errors = time[kept], error[kept]
        parts = np.concatenate([parts[one], other[:, None]], axis=1)
    return ticks, errors, parts


class _Walk:
    """What one step more makes of the steps before."""

    def __init__(self, choices: Sequence[Sequence[Choice]], sets: SlotSets) -> None:
        self._sets = sets
        self._names = [*sets.sets]
        self._depth = dict.fromkeys(self._names, 0)
        # Per slot set and beginning of sources that are read the last step that reads them.
        self._last: dict[tuple[str, Sources], int] = {}
        for place, name, sources in _reads(choices):
            self._depth[name] = max(self._depth[name], len(sources))
            for count in range(1, len(sources) + 1):
                self._last[name, sources[:count]] = place

    def step(
        self, place: int, choice: Choice, memories: Sequence[Memory], known: dict[Memory, int]
    ) -> tuple[Ints, Ints]:
        """Per memory the number of that which follows, -1 where a read fails, and the error."""
        to, cost = np.full(len(memories), -1), np.zeros(len(memories), dtype=np.int64)
        at = {name: index for index, name in enumerate(self._names)}
        reads = [(at[name], choice.order + 1, of) for name, of in choice.reads.items()]
        for number, memory in enumerate(memories):
            error = choice.error
            for index, depth, errors in reads:
                # Relevance is read from its newest source alone, whatever the order.
                sources = memory[index][-depth:]
                added = errors.get(sources, errors.get(sources[-1:]))
                if added is None:
                    break
                error += added
            else:
                after = self._after(place, choice.move, memory)
                to[number] = known.setdefault(after, len(known))
                cost[number] = error
        return to, cost

    def _after(self, place: int, move: str, memory: Memory) -> Memory:
        found: list[Sources] = []
        for name, sources in zip(self._names, memory, strict=True):
            effect = self._sets.effects[move, name]
            if effect == "writes":
                sources = (*sources, place)[-self._depth[name] :] if self._depth[name] else ()
            elif effect == "breaks":
                sources = ()
            while sources and self._last.get((name, sources), -1) <= place:
                sources = sources[1:]
            found.append(sources)
        return tuple(found)


def _reads(choices: Sequence[Sequence[Choice]]) -> Iterator[tuple[int, str, Sources]]:
    for place, here in enumerate(choices):
        for choice in here:
            for name, errors in choice.reads.items():
                for sources in errors:
                    yield place, name, sources


def _unbeaten(memory: Ints, ticks: Ints, errors: Ints) -> tuple[Ints, bool]:
    """The beginnings that none of the same memory beats, by memory and time; whether all."""
    order = np.lexsort((errors, ticks, memory))
    sorted_memory, sorted_errors = memory[order], errors[order]
    kept = np.ones(len(order), dtype=bool)
    for grain in range(0, 44, 2):
        # Later memories lie below all earlier ones, so that the least starts anew with each.
        height = (sorted_errors >> grain) - sorted_memory * _APART
        least = np.minimum.accumulate(height)
        kept[1:] = height[1:] < least[:-1]
        if kept.sum() <= MOST_BEGINNINGS:
            return order[kept], grain == 0
    return order[kept], False
