"""Random plans drawn from a model's moves: legal ones, not only good ones."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from turbo4d.compiler.calibrate.harness import Harness
from turbo4d.compiler.calibrate.moves import Group, Move, row
from turbo4d.runtime.plan import Plan, Row

Drawn = list[tuple[str, int]]  # per visited step a move's name and its order


def draw(seed: int, moves: Sequence[Move], groups: Sequence[Group], steps: int) -> Drawn:
    """The moves of one stream; step 0 computes.

    How much is computed, where more of it is, and which moves are likely differ from plan to plan.
    Every second plan takes the moves of the core and the levels alone, as good plans do.

    Args:
        seed: of the plan.
        moves: to draw from; fitted ones are not drawn, for a plan's weights are found one by one.
        groups: of the model.
        steps: that the stream visits.
    """
    rng = random.Random(seed)
    large = {group.name for group in groups if group.kind in ("core", "level")}
    acting = [m for m in moves if m.actions and not m.fitted]
    if seed % 2:
        acting = [m for m in acting if {*m.groups} & large] or acting
    share = rng.uniform(0.1, 0.95)
    ends = rng.randint(0, steps), rng.randint(0, steps)
    likely = {move.name: rng.gammavariate(0.5, 1.0) + 1e-9 for move in acting}
    written: dict[str, list[int]] = {group.name: [] for group in groups}
    found: Drawn = []
    for step in range(steps):
        computed = (1 + share) / 2 if min(ends) <= step < max(ends) else share
        legal = _legal(acting, written)
        move, order = next(m for m in moves if not m.actions), 0
        if step and legal and rng.random() >= computed:
            # The higher orders are drawn less often, so that no move is drawn for having them.
            weight = [likely[each.name] / 2.0**of for each, of in legal]
            move, order = rng.choices(legal, weight)[0]
        found.append((move.name, order))
        for name in move.executed:
            written[name].append(step)
    return found


def plan_of(harness: Harness, name: str, drawn: Mapping[str, Drawn], moves: Sequence[Move]) -> Plan:
    """The plan that was drawn.

    Args:
        harness: that has learned.
        name: of the plan.
        drawn: per stream.
        moves: drawn from.
    """
    by_name = {move.name: move for move in moves}
    streams: dict[str, list[Row]] = {}
    for stream, steps in harness.streams.items():
        rows: list[Row] = [None] * len(harness.levels)
        for step, (move, order) in zip(steps, drawn[stream], strict=True):
            rows[step] = row(by_name[move], order)
        streams[stream] = rows
    steps = len(harness.levels)
    return harness.plan(name, streams, max_age=steps, max_variants=steps * len(streams))


def _legal(moves: Sequence[Move], written: Mapping[str, Sequence[int]]) -> list[tuple[Move, int]]:
    return [
        (move, order)
        for move in moves
        for order in move.orders
        if all(len(written[name]) > order for name in move.groups)
    ]
