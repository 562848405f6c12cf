"""A made-up model of nested regions, and made-up errors with the interface of an error table."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Collection, Mapping, Sequence
from itertools import product

from turbo4d.compiler.calibrate.fidelity import amplitude
from turbo4d.compiler.calibrate.moves import Move, groups_of, moves_of, row
from turbo4d.runtime.errors import PlanError
from turbo4d.runtime.geometry import Geometry
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.region_info import RegionInfo, RegionKind

CHAINS = {"a.chain": "core", "b.chain": "level.1", "m.chain": "level.2"}
SECONDS = {
    "compute": 0.235,
    "core": 0.0006,
    "level.1": 0.135,
    "level.2": 0.19,
    "chains": 0.16,
    "spatial": 0.2,
    "camera": 0.22,
    "motion": 0.221,
    "bypass": 0.158,
}


def _region(
    name: str, kind: RegionKind, parent: str | None, size: int, relevance: str | None = None
) -> RegionInfo:
    return RegionInfo(
        name,
        kind,
        parent,
        residual=kind in ("block", "chain"),
        slot_bytes=size,
        flops=100,
        relevance=relevance,
        relevance_bytes=10 if relevance else 0,
        prunable_flops=50 if relevance else 0,
    )


def regions() -> tuple[RegionInfo, ...]:
    """A core, two levels, three chains of three blocks."""
    found = [
        _region("core", "core", None, 1000),
        _region("level.1", "level", "core", 600),
        _region("level.2", "level", "level.1", 300),
    ]
    for chain, parent in CHAINS.items():
        found.append(_region(chain, "chain", parent, 400))
        for kind in ("spatial", "camera", "motion"):
            found.append(_region(f"{chain}.{kind}", "block", chain, 130, f"{chain}.spatial"))
    return tuple(found)


class Table:
    """Errors drawn at random: a base per move, larger in the middle of the run, rising with age.

    Args:
        steps: of the run.
        use: names of the moves.
        seed: of the draw.
        orders: that reuse may take.
        streams: per stream the steps it visits; None for one that visits all.
    """

    def __init__(
        self,
        steps: int,
        use: Collection[str],
        seed: int = 0,
        orders: Collection[int] = (0,),
        streams: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self.levels = tuple(100.0 * 0.6**step for step in range(steps))
        self.groups = groups_of(regions())
        self.moves = tuple(
            dataclasses.replace(move, orders=tuple(o for o in move.orders if o in orders))
            for move in moves_of(regions(), self.groups, use=use)
        )
        self.streams = streams or {"main": tuple(range(steps))}
        draw = random.Random(seed)
        self._gains = {
            (stream, move.name): [
                0.006 * draw.uniform(0.5, 1.5) / (1 + 0.05 * (step - 0.6 * steps) ** 2)
                for step in range(steps)
            ]
            for stream in self.streams
            for move in self.moves
        }

    def group_error(
        self,
        stream: str,
        step: int,
        move: str,
        group: str,
        order: int,
        sources: Sequence[int],
        storage: str = "compute",
    ) -> float:
        share = {"core": 1.0, "level.1": 0.4, "level.2": 0.2}.get(group, 0.5)
        age = (step - sources[-1]) ** 0.9 * (1 - 0.2 * order)
        apart = 0.05 * (sources[-1] - sources[0])
        rounding = {"compute": 0.0, "int8": 0.3}[storage]
        return self._gains[stream, move][step] * share * (age + apart + rounding)

    def error(
        self,
        stream: str,
        step: int,
        move: str,
        order: int,
        sources: Mapping[str, Sequence[int]],
        storage: str = "compute",
    ) -> float:
        if move == "compute":
            return 0.0
        if not sources:
            return 2 * self._gains[stream, move][step]
        return sum(
            self.group_error(stream, step, move, group, order, of, storage)
            for group, of in sources.items()
        )

    def seconds(self) -> dict[str, float]:
        return {move.name: SECONDS.get(move.name, 0.23) for move in self.moves}


Taken = tuple[tuple[Move, int], ...]


def plan_of(
    table: Table,
    rows: Mapping[str, Sequence[object]],
    *,
    max_age: int,
    max_variants: int,
    max_cache_bytes: int | None,
) -> Plan:
    return Plan(
        name="made",
        model="m",
        geometry=Geometry(1, 2, 2, 8, 8),
        levels=table.levels,
        level_unit="sigma",
        streams={name: tuple(of) for name, of in rows.items()},  # type: ignore[arg-type]
        max_age=max_age,
        max_variants=max_variants,
        max_cache_bytes=max_cache_bytes,
    )


def sources_read(
    table: Table, taken: Taken, max_order: int = 9
) -> list[dict[str, tuple[int, ...]]]:
    """Per step and group that it reads the steps that wrote it, found region by region.

    Raises:
        PlanError: a group's regions were written at different steps.
    """
    parents = {region.name: region.parent for region in regions()}
    groups = {group.name: group.regions for group in table.groups}
    written: dict[str, list[int]] = {name: [] for name in parents}
    found: list[dict[str, tuple[int, ...]]] = []
    for step, (move, order) in enumerate(taken):
        reads: dict[str, tuple[int, ...]] = {}
        for group in move.groups:
            of = {tuple(written[region]) for region in groups[group]}
            last = {steps[-order - 1 :] for steps in of}
            if len(last) > 1 or len(min(last)) <= order:
                raise PlanError("mixed or missing")
            reads[group] = last.pop()
        for region in written:
            at: str | None = region
            while at is not None and at not in move.actions:
                at = parents[at]
            if at is None:
                written[region].append(step)
        found.append(reads)
    return found


def best_by_enumeration(
    table: Table,
    budget_db: float,
    *,
    max_age: int,
    max_variants: int,
    max_cache_bytes: int | None,
) -> float:
    """Seconds of the fastest plan of one stream among all that there are, each fully checked."""
    [stream] = table.streams
    choices = [(move, order) for move in table.moves for order in move.orders]
    seconds = table.seconds()
    best = float("inf")
    for rest in product(choices, repeat=len(table.levels) - 1):
        taken: Taken = ((table.moves[0], 0), *rest)
        total = sum(seconds[move.name] for move, _ in taken)
        if total >= best:
            continue
        plan = plan_of(
            table,
            {stream: [row(move, order) for move, order in taken]},
            max_age=max_age,
            max_variants=max_variants,
            max_cache_bytes=max_cache_bytes,
        )
        try:
            plan.check(regions())
            read = sources_read(table, taken)
        except PlanError:
            continue
        error = sum(
            table.error(stream, step, move.name, order, read[step])
            for step, (move, order) in enumerate(taken)
        )
        if error <= amplitude(budget_db):
            best = total
    return best
