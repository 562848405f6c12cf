"""move-seconds: what one step of each move is predicted to take on a machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from turbo4d.compiler.calibrate.moves import Move
from turbo4d.compiler.machine import Machine
from turbo4d.compiler.predicted_time import variant_seconds
from turbo4d.runtime.region_info import relevance_slot
from turbo4d.runtime.variant_key import VariantKey

if TYPE_CHECKING:
    from turbo4d.compiler.analysis import Analysis


def move_seconds(analysis: Analysis, moves: Sequence[Move], machine: Machine) -> dict[str, float]:
    """Per move the time of its graph, writing no slot.

    Args:
        analysis: of the model.
        moves: to be timed.
        machine: that runs them.
    """
    relevance = {region.name: region.info.relevance for region in analysis.regions}

    def variant(move: Move) -> VariantKey:
        pruned = {
            relevance[name] for name, action in move.actions.items() if action.kind == "prune"
        }
        reads = sorted(relevance_slot(name) for name in pruned if name is not None)
        return VariantKey(tuple(move.actions.items()), (), exact=True, relevance=tuple(reads))

    return {move.name: variant_seconds(analysis, variant(move), machine) for move in moves}
