"""choices: all that one step of a stream may do, each with what it reads and what that adds.

Errors are amplitudes of the final fidelity, counted here in whole parts of `PART`, rounded up, so
that no sum of them understates what the table says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from turbo4d.compiler.calibrate.error_table import ErrorTable
    from turbo4d.compiler.calibrate.moves import Move
    from turbo4d.compiler.calibrate.slot_sets import SlotSets

PART = 1e-9
# Extrapolation is offered from sources this many visited steps apart at most (a fitted reuse from
# any, for its weights say how much the older is worth), and where what the
# newest alone would add is no less than this: else the solver has thousands of reads to weigh that
# gain nothing.
APART = 3
WORTH = 1e-5
Sources = tuple[int, ...]  # positions in the stream's visited steps, oldest first


def parts(error: float) -> int:
    """An error in whole parts, rounded up."""
    return math.ceil(error / PART)


@dataclass(frozen=True)
class Choice:
    """One move of one order at one step.

    Args:
        move: its name.
        order: of its reuse.
        error: in parts, whatever it reads.
        reads: per slot set the sources it may be read from, each with the error that adds in parts.
    """

    move: str
    order: int
    error: int
    reads: Mapping[str, Mapping[Sources, int]]

    @property
    def least_error(self) -> int:
        """With the best source of each slot set."""
        return self.error + sum(min(errors.values()) for errors in self.reads.values())


def choices_of(
    table: ErrorTable,
    stream: str,
    sets: SlotSets,
    *,
    max_age: int,
    warmup: int,
    storage: str,
) -> list[list[Choice]]:
    """Per visited step of a stream what it may do.

    Extrapolation is left out where reusing the newest value as it is errs as little; see also
    `APART` and `WORTH`.

    Args:
        table: of errors.
        stream: of it.
        sets: of its moves.
        max_age: steps that the newest source may lie back.
        warmup: how many of the first visited steps compute everything.
        storage: how slots are kept.
    """
    steps = table.streams[stream]
    found: list[list[Choice]] = []
    for place in range(len(steps)):
        here: list[Choice] = []
        for move in table.moves:
            if place < warmup and move.actions:
                continue
            here += _of_move(table, stream, sets, move, place, max_age, storage)
        found.append(here)
    return found


def affordable(choices: Sequence[Sequence[Choice]], budget: int) -> list[list[Choice]]:
    """Those that alone stay within a budget, in parts; and of their sources those that do."""
    found: list[list[Choice]] = []
    for here in choices:
        kept: list[Choice] = []
        for choice in here:
            left = budget - choice.least_error
            reads = {
                name: {
                    sources: error
                    for sources, error in errors.items()
                    if error - min(errors.values()) <= left
                }
                for name, errors in choice.reads.items()
            }
            if left >= 0:
                kept.append(replace(choice, reads=reads))
        found.append(kept)
    return found


def _of_move(
    table: ErrorTable,
    stream: str,
    sets: SlotSets,
    move: Move,
    place: int,
    max_age: int,
    storage: str,
) -> list[Choice]:
    steps = table.streams[stream]
    newest = [a for a in range(place) if steps[place] - steps[a] <= max_age]
    found: list[Choice] = []
    for order in move.orders if move.groups else (0,):
        own = 0.0
        if not move.groups:
            own = table.error(stream, steps[place], move.name, 0, {}, storage)
        reads: dict[str, dict[Sources, int]] = {}
        for name in sets.reads[move.name]:
            group = sets.sets[name].group
            if group is None:
                reads[name] = {(a,): 0 for a in newest}
                continue
            plain: Mapping[Sources, int] = found[0].reads[name] if found else {}
            reads[name] = {
                sources: error
                for sources in _sources(newest, order, place if move.fitted else APART)
                if (
                    error := parts(
                        table.group_error(
                            stream,
                            steps[place],
                            move.name,
                            group,
                            order,
                            _steps(sources, steps),
                            storage,
                        )
                    )
                )
                < (least := plain.get(sources[-1:], math.inf))
                and least >= parts(WORTH)
            }
        if all(reads.values()):
            found.append(Choice(move.name, order, parts(own), reads))
    return found


def _steps(sources: Sources, steps: Sequence[int]) -> tuple[int, ...]:
    return tuple(steps[place] for place in sources)


def _sources(newest: Sequence[int], order: int, apart: int) -> list[Sources]:
    found: list[Sources] = [(last,) for last in newest]
    for _ in range(order):
        found = [
            (older, *sources)
            for sources in found
            for older in range(max(0, sources[0] - apart), sources[0])
        ]
    return found
