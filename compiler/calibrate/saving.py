"""saving: the moves that are worth a search among all that a model has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from turbo4d.compiler.calibrate.moves import Group, Move

# A move that saves less of a computed step than this is not searched among, unless it is asked for:
# each one more makes the search slower, and these are seldom taken.
WORTH = 0.125


def saving(
    moves: Sequence[Move], groups: Sequence[Group], seconds: Mapping[str, float]
) -> tuple[Move, ...]:
    """Those that save much of a computed step; see `WORTH`.

    Where the whole step can be fitted, the core is not reused and no chain is left out: that takes
    longer and errs more. And where the network has levels, of the smaller regions the outermost of
    them is: it saves most for what it errs, and plans of few moves are soon looked through.

    Args:
        moves: of a model.
        groups: of it.
        seconds: per move what it takes.
    """
    whole = max(seconds[move.name] for move in moves if not move.actions)
    kinds = {group.name: group.kind for group in groups}
    fitted = any(move.fitted for move in moves)

    def left_out(move: Move) -> bool:
        return bool(move.actions) and (
            not move.groups or any(kinds[name] == "core" for name in move.groups)
        )

    levels = [group.name for group in groups if group.kind == "level"]
    smaller = {name for name, kind in kinds.items() if kind in ("chain", "block")} | {*levels[1:]}
    return tuple(
        replace(move, orders=_orders(move, seconds[move.name] / whole))
        for move in moves
        if not move.actions or seconds[move.name] <= (1 - WORTH) * whole
        if not (fitted and left_out(move))
        if not (levels and smaller & {*move.groups})
        if move.groups or not (levels and move.actions)
    )


def _orders(move: Move, share: float) -> tuple[int, ...]:
    """The orders that are searched: what is dear to reuse anyway is not extrapolated."""
    return tuple(order for order in move.orders if order <= (1 if share < 0.75 else 0))
