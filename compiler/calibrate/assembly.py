"""What was measured, put together: the mean of the examples' changes, and gains at every step."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .error_table import ErrorTable, Matrix, Measured
from .gains import Probe, between
from .moves import Move, gain_name

# A gain below this is told from nothing by rounding alone; its logarithm is taken.
LEAST = 1e-9
Changes = Mapping[str, Any]  # per stream, as `Changes.found` gives it


def assembled(
    table: ErrorTable, changes: Sequence[Changes], errors: Sequence[Mapping[Probe, float]]
) -> ErrorTable:
    """The table with what was measured in it.

    Args:
        table: without anything measured.
        changes: of each example.
        errors: of the probes of the first examples, the first of which has them all.
    """
    own = [replace(table, measured=_measured([each])) for each in changes[: len(errors)]]
    gains = [
        {probe: _gain(mine, probe, error) for probe, error in found.items()}
        for mine, found in zip(own, errors, strict=True)
    ]
    joined = _joined(gains)
    measured = {
        stream: replace(of, gains=_filled(table, stream, of.steps, joined))
        for stream, of in _measured(changes).items()
    }
    return replace(table, measured=measured)


def _measured(changes: Sequence[Changes]) -> dict[str, Measured]:
    """Per stream the mean of these examples' changes, without gains."""
    return {
        stream: Measured(
            steps=tuple(first["steps"]),
            products={
                group: _mean([each[stream]["products"][group] for each in changes])
                for group in first["products"]
            },
            gains={},
            fit_products=_mean([each[stream]["fit_products"] for each in changes]),
            rounding={
                storage: {group: tuple(errors) for group, errors in of.items()}
                for storage, of in first["rounding"].items()
            },
        )
        for stream, first in changes[0].items()
    }


def _mean(matrices: Sequence[Sequence[Sequence[float]]]) -> Matrix:
    return tuple(
        tuple(sum(values) / len(matrices) for values in zip(*rows, strict=True))
        for rows in zip(*matrices, strict=True)
    )


def _gain(table: ErrorTable, probe: Probe, error: float) -> float:
    """What a change of one would have added; of a move that reads nothing the error itself."""
    move = _move(table, probe.move)
    if not move.groups:
        return max(error, LEAST)
    change = sum(
        table.change(probe.stream, probe.step, name, probe.sources) for name in move.groups
    )
    return max(error / change, LEAST) if change > 0 else LEAST


def _joined(gains: Sequence[Mapping[Probe, float]]) -> Mapping[Probe, float]:
    """The mean over the examples; what only the first has is scaled as the others lie to it."""
    first, *others = gains
    shared = [probe for probe in first if all(probe in other for other in others)]
    scale = 1.0
    if others and shared:
        logs = [math.log(_average(gains, probe) / first[probe]) for probe in shared]
        scale = math.exp(sum(logs) / len(logs))
    return {
        probe: _average(gains, probe) if probe in shared else gain * scale
        for probe, gain in first.items()
    }


def _average(gains: Sequence[Mapping[Probe, float]], probe: Probe) -> float:
    return sum(each[probe] for each in gains) / len(gains)


def _filled(
    table: ErrorTable, stream: str, steps: Sequence[int], gains: Mapping[Probe, float]
) -> dict[str, dict[str, tuple[float, ...]]]:
    """Gains at every step, of every move and order.

    Over the steps a gain rises and falls by orders of magnitude, but so do all together: what is
    interpolated is the ratio to the move that was probed most, and of an order to its order 0. An
    order that was not probed takes the mean ratio of the moves whose order was.
    """
    known: dict[tuple[str, int], dict[int, float]] = defaultdict(dict)
    for probe, gain in gains.items():
        if probe.stream == stream:
            known[probe.move, probe.order][probe.step] = gain
    guide: Mapping[int, float] = max(known.values(), key=len) if known else {}
    plain = {
        move: _guided(table, steps, of, guide) for (move, order), of in known.items() if not order
    }
    ratios: dict[int, list[Sequence[float]]] = defaultdict(list)
    for (move, order), of in known.items():
        if order:
            own = dict(zip(steps, plain[move], strict=True))
            ratio = {step: gain / own[step] for step, gain in of.items()}
            ratios[order].append(between(ratio, steps, table.levels, table.level_unit))
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for name, values in plain.items():
        move = _move(table, name)
        for order in move.orders if move.groups else (0,):
            known_order = ratios[order] and not move.fitted
            scale = _geometric_mean(ratios[order]) if known_order else (1.0,) * len(steps)
            scaled = tuple(gain * by for gain, by in zip(values, scale, strict=True))
            found[gain_name(name, order)] = dict.fromkeys(move.groups or ("",), scaled)
    return found


def _guided(
    table: ErrorTable, steps: Sequence[int], gains: Mapping[int, float], guide: Mapping[int, float]
) -> tuple[float, ...]:
    guided = between(guide, steps, table.levels, table.level_unit)
    at = dict(zip(steps, guided, strict=True))
    ratios = {step: gain / at[step] for step, gain in gains.items()}
    scales = between(ratios, steps, table.levels, table.level_unit)
    return tuple(scale * gain for scale, gain in zip(scales, guided, strict=True))


def _geometric_mean(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(
        math.exp(sum(map(math.log, column)) / len(rows)) for column in zip(*rows, strict=True)
    )


def _move(table: ErrorTable, name: str) -> Move:
    return next(move for move in table.moves if move.name == name)
