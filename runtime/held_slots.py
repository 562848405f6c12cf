"""The slots of one stream as a run holds them, and what they may take."""

from __future__ import annotations

from .holding import Holding
from .memory_plan import memory_plan, refuse_arena
from .plan import Plan
from .plan_check import PlanCheck
from .slot_arena import SlotArena
from .slots import Slots
from .steering import Steering


def held_slots(
    plan: Plan,
    check: PlanCheck,
    stream: str,
    steering: Steering | None,
    holding: Holding,
    others_bytes: int,
) -> tuple[Slots, tuple[int, ...]]:
    """Empty slots of a stream.

    Args:
        plan: that is carried out.
        check: its proof.
        stream: the stream's name.
        steering: of an adaptive run, else None.
        holding: how slots are held.
        others_bytes: what the slots of other streams take, of which an adaptive run's proof does
            not know.

    Returns:
        The slots, and per step how many bytes they may take.

    Raises:
        PlanError: where fixed slots need more than the plan's bound.
    """
    if not holding.fixed_slots:
        bounds = check.held_bytes[stream]
        if steering is not None:
            bounds = (steering.held_bytes,) * plan.steps
        return Slots(check.storage, offload=holding.offload), bounds
    if steering is not None:
        arena = steering.arena
    else:
        memory = memory_plan(check)
        arena = memory.arenas[stream]
        others_bytes = memory.arena_bytes - arena.size_bytes
    refuse_arena(plan, stream, arena, others_bytes)
    return Slots(check.storage, SlotArena(arena)), (arena.size_bytes,) * plan.steps
