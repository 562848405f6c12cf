"""What a change of one at a step adds to the final error: replayed runs with one deviating step.

Every probe costs the steps after it, so moves that matter much are probed at `DENSE` steps and the
others at `FEW`, between which the gain is interpolated over ln(sigma). What extrapolation gets
wrong moves the final sample less than as large an error of plain reuse, so each order has gains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from turbo4d.runtime.levels import LevelUnit, log_sigma

from .fidelity import amplitude
from .harness import Harness
from .moves import Move, gain_name
from .replay import Deviation, Recording

DENSE = 10  # steps at which a move that matters much is probed
FEW = 5  # steps at which another is


Item = TypeVar("Item")


@dataclass(frozen=True)
class Probe:
    """One deviating step.

    Args:
        stream: of the step.
        step: that deviates.
        move: its name.
        sources: the steps before it in its stream, which wrote what is read, the oldest first;
            none where nothing is.
    """

    stream: str
    step: int
    move: str
    sources: tuple[int, ...]

    @property
    def order(self) -> int:
        """Of its reuse."""
        return max(0, len(self.sources) - 1)

    @property
    def name(self) -> str:
        """For a state file."""
        return f"{self.stream} {self.step} {gain_name(self.move, self.order)}"


def probes_of(
    streams: Mapping[str, Sequence[int]], moves: Sequence[Move], *, dense: Sequence[str]
) -> tuple[Probe, ...]:
    """The probes of one example, the moves that matter most first.

    Args:
        streams: per stream the steps that it visits.
        moves: to be probed; what reads nothing and omits nothing is left out.
        dense: names of moves that are probed at `DENSE` steps.
    """
    acting = [move for move in moves if move.actions]
    acting.sort(key=lambda move: move.name not in dense)
    found: list[Probe] = []
    for move in acting:
        often = move.name in dense
        for order in move.orders if often and not move.fitted else (0,):
            for stream, steps in streams.items():
                places = [*range(order + 1, len(steps))]
                chosen = spread(places, DENSE if often and not order else FEW)
                found += [
                    Probe(
                        stream,
                        steps[at],
                        move.name,
                        tuple(steps[at - order - 1 : at]) if move.groups else (),
                    )
                    for at in chosen
                ]
    return tuple(found)


def probe_error(
    harness: Harness, example: object, recording: Recording, probe: Probe, move: Move
) -> float:
    """The final error of one probe, an amplitude.

    Args:
        harness: that has learned.
        example: that was recorded.
        recording: an exact run of it.
        probe: to be made.
        move: that the probe names.
    """
    sources = dict.fromkeys(move.actions, probe.sources) if probe.sources else {}
    deviation = Deviation(probe.stream, probe.step, move.actions, sources)
    return amplitude(harness.judge(example, harness.probe(example, recording, deviation)))


def between(
    known: Mapping[int, float], steps: Sequence[int], levels: Sequence[float], unit: LevelUnit
) -> tuple[float, ...]:
    """A gain at every step: its logarithm is linear in ln(sigma) between the probed steps.

    Args:
        known: per probed step the gain, above 0; at least one.
        steps: where gains are wanted.
        levels: of all steps.
        unit: of the levels.
    """
    places = {step: log_sigma(levels[step], unit) for step in {*known, *steps}}
    logs = {step: math.log(gain) for step, gain in known.items()}
    probed = sorted(known)
    found: list[float] = []
    for step in steps:
        before = max((each for each in probed if each <= step), default=probed[0])
        after = min((each for each in probed if each >= step), default=probed[-1])
        if before == after:
            found.append(math.exp(logs[before]))
            continue
        share = (places[step] - places[before]) / (places[after] - places[before])
        found.append(math.exp(logs[before] + share * (logs[after] - logs[before])))
    return tuple(found)


def spread(places: Sequence[Item], count: int) -> list[Item]:
    """So many of the places, evenly spread from the first to the last."""
    if len(places) <= count:
        return [*places]
    last = len(places) - 1
    return [places[at] for at in sorted({round(at * last / (count - 1)) for at in range(count)})]
