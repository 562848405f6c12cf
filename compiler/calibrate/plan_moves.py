"""A plan read as moves: what each step takes, from which steps it reads, and what all that adds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from turbo4d.compiler.errors import CalibrationError
from turbo4d.runtime.action import Action
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.region_info import RegionInfo

from .error_table import ErrorTable
from .moves import Group, Move, executed


@dataclass(frozen=True)
class Taken:
    """What one step does.

    Args:
        step: of the plan.
        move: its name.
        order: of its reuse.
        sources: per group that it reads, the steps that wrote what is read, the oldest first.
        storage: in what those slots are kept.
    """

    step: int
    move: str
    order: int
    sources: Mapping[str, tuple[int, ...]]
    storage: str


def predicted_error(table: ErrorTable, plan: Plan, regions: Sequence[RegionInfo]) -> float:
    """The expected final error of a plan, as an amplitude.

    Args:
        table: of what moves add.
        plan: of the table's moves.
        regions: of the model.

    Raises:
        CalibrationError: where a row of the plan is none of the table's moves.
    """
    return sum(
        table.error(stream, each.step, each.move, each.order, each.sources, each.storage)
        for stream in plan.streams
        for each in moves_taken(table, plan, stream, regions)
    )


def predicted_db(table: ErrorTable, plan: Plan, regions: Sequence[RegionInfo]) -> float:
    """The expected fidelity of a plan in dB; infinite where nothing is reused."""
    error = predicted_error(table, plan, regions)
    return -20 * math.log10(error) if error > 0 else math.inf


def moves_taken(
    table: ErrorTable, plan: Plan, stream: str, regions: Sequence[RegionInfo]
) -> Iterator[Taken]:
    """The moves of a plan's stream, step by step.

    A group whose regions were written at different steps counts from the oldest.

    Raises:
        CalibrationError: where a row is none of the table's moves, or a slot is read that fewer
            steps wrote than its order needs.
    """
    by_name = {region.name: region for region in regions}
    groups = {group.name: group for group in table.groups}
    written: dict[str, list[int]] = {name: [] for name in by_name}
    singles = [Group(name, region.kind, (name,)) for name, region in by_name.items()]
    for step, actions in enumerate(plan.rows(stream)):
        if actions is None:
            continue
        move, order = _move_of(
            table, actions, f"plan {plan.name!r}, stream {stream!r}, step {step}"
        )
        read = [groups[name] for name in move.groups]
        yield Taken(
            step,
            move.name,
            order,
            {group.name: _sources(group, order, written, step, stream) for group in read},
            _storage(plan, read),
        )
        for name in executed(actions, singles, by_name):
            written[name].append(step)


def _move_of(table: ErrorTable, actions: Mapping[str, Action], place: str) -> tuple[Move, int]:
    plain = {name: act.built for name, act in actions.items()}
    orders = {act.order for act in actions.values() if act.kind == "reuse"} or {0}
    for move in table.moves:
        if move.actions == plain and len(orders) == 1:
            return move, orders.pop()
    named = ", ".join(f"{name}: {act}" for name, act in sorted(actions.items())[:3])
    raise CalibrationError(
        f"{place}: its row ({named}) is no measured move; there are "
        f"{', '.join(sorted(move.name for move in table.moves))}."
    )


def _sources(
    group: Group, order: int, written: Mapping[str, Sequence[int]], step: int, stream: str
) -> tuple[int, ...]:
    found = [tuple(written[name][-order - 1 :]) for name in group.regions]
    if any(len(sources) <= order for sources in found):
        raise CalibrationError(
            f"stream {stream!r}, step {step}: group {group.name!r} is read with order {order} "
            f"before {order + 1} steps wrote it; compute it first."
        )
    return min(found)


def _storage(plan: Plan, groups: Sequence[Group]) -> str:
    kept = {plan.storage.get(name, "compute") for group in groups for name in group.regions}
    if len(kept) > 1:
        raise CalibrationError(
            f"plan {plan.name!r}: one group's slots are kept in several ways, "
            f"{', '.join(sorted(kept))}; keep them in one."
        )
    return kept.pop() if kept else "compute"
