"""fronts: the fastest plan of every budget over all streams, from the plans of each (`paths`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from turbo4d.compiler.calibrate.choices import Choice, affordable
from turbo4d.compiler.calibrate.paths import Front, Ints, front_of, joined

if TYPE_CHECKING:
    from turbo4d.compiler.calibrate.slot_sets import SlotSets

Taken = tuple[tuple[str, int], ...]  # per visited step of a stream move and order


@dataclass(frozen=True)
class Fronts:
    """The plans up to a budget that no other beats, time rising and error falling.

    Args:
        budget: in parts of error.
        streams: per stream its own plans; none where they are too many to be walked through.
        ticks: of each plan.
        errors: of each, in parts.
        numbers: per plan and stream the number of the stream's plan.
    """

    budget: int
    streams: Mapping[str, Front]
    ticks: Ints
    errors: Ints
    numbers: Ints

    @staticmethod
    def of(
        choices: Mapping[str, Sequence[Sequence[Choice]]],
        sets: SlotSets,
        ticks: Mapping[str, int],
        budget: int,
    ) -> Fronts:
        """Walks through all plans.

        Args:
            choices: per stream and visited step.
            sets: the slot sets that they read.
            ticks: per move what a step of it takes.
            budget: in parts of error.
        """
        streams: dict[str, Front] = {}
        for stream, found in choices.items():
            within = affordable(found, budget)
            front = front_of(within, sets, ticks, budget) if all(within) else None
            if front is None:
                nothing = np.zeros(0, dtype=np.int64)
                return Fronts(budget, {}, nothing, nothing, nothing)
            streams[stream] = front
        return Fronts(budget, streams, *joined([*streams.values()]))

    @property
    def whole(self) -> bool:
        """Whether no plan was left out."""
        return all(front.whole for front in self.streams.values())

    def fastest(self, budget: int) -> tuple[Mapping[str, Taken], int] | None:
        """The fastest plan within a budget, and its error in parts.

        Args:
            budget: in parts, no looser than this one's.
        """
        within = np.flatnonzero(self.errors <= budget)
        if not len(within):
            return None
        at = int(within[0])
        steps = {
            stream: front.taken(int(number))
            for (stream, front), number in zip(self.streams.items(), self.numbers[at], strict=True)
        }
        return steps, int(self.errors[at])
