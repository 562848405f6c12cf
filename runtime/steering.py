"""steering: what an adaptive run adds to a stream: its choices as engines, its measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .adaptive import Bounds, Decision, Scheduler
from .cell import Cell, needed_values
from .change import relative_change
from .errors import PlanError
from .levels import to_sigma
from .memory_plan import arena_of
from .rungs import Rung, rungs_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from .engine import Engine
    from .memory_plan import Arena
    from .plan import Plan
    from .plan_check import PlanCheck
    from .region_info import RegionInfo
    from .slots import Slots
    from .variant_key import VariantKey


class Steering:
    """Chooses the cell of each step of one stream.

    Args:
        plan: that says what a typical scene needs.
        check: its proof.
        stream: the stream's name.
        regions: of the model.
        engines: gives the engine of a variant.
        bounds: as the user gave them; the plan's own `max_age` stands beside them.

    Attributes:
        held_bytes: what the slots hold at most, whichever row comes after whichever.
        arena: where they lie if their addresses do not move; none shares bytes with another.
        planned: what the plan does at each step, None where the stream does not run.

    Raises:
        PlanError: where the choices need more variants or bytes than the plan allows.
    """

    def __init__(
        self,
        plan: Plan,
        check: PlanCheck,
        stream: str,
        regions: Sequence[RegionInfo],
        engines: Callable[[VariantKey], Engine],
        bounds: Bounds,
    ) -> None:
        _refuse_weights(plan, check, stream)
        rungs = rungs_of(plan, check, stream, regions)
        held = dict(check.depth)
        self.held_bytes = _bounded(plan, check, rungs)
        self.arena = _arena(check, rungs)
        # By row: rows that differ in the order of a reuse alone share a graph, and are two cells.
        self._cells = {
            rung.cells: Cell(rung.key.name, engines(rung.key), held, rung.orders) for rung in rungs
        }
        by_row = {rung.cells: rung for rung in rungs}
        cores = [region.name for region in regions if region.kind == "core"]
        planned = [
            None if row is None else by_row[tuple(sorted(row.items()))]
            for row in plan.streams[stream]
        ]
        self.planned = tuple(None if rung is None else self._cells[rung.cells] for rung in planned)
        self._scheduler = Scheduler(
            stream,
            rungs,
            planned,
            [to_sigma(level, plan.level_unit) for level in plan.levels],
            regions,
            plan.max_age,
            bounds,
            next((name for name in cores if name in check.depth), None),
        )

    @property
    def variants(self) -> tuple[VariantKey, ...]:
        """The graphs that the stream may need."""
        return tuple(dict.fromkeys(cell.engine.key for cell in self._cells.values()))

    @property
    def watched(self) -> str | None:
        """The region whose change tells how the scene differs, None where the plan has no slot."""
        return self._scheduler.watched

    @property
    def decisions(self) -> Sequence[Decision]:
        """What each step did, and why."""
        return self._scheduler.decisions

    def cell(self, step: int) -> Cell:
        """What a step does."""
        return self._cells[self._scheduler.decide(step).cells]

    def ran(self, step: int, slots: Slots, written: Mapping[str, Tensor]) -> None:
        """Notes that the step chosen last has run, and measures what it computed anew.

        Args:
            step: that ran.
            slots: as they were before it.
            written: by slot the first tensor that the step gives it.
        """
        watched = self._scheduler.watched
        now = None if watched is None else written.get(watched)
        before = None if watched is None or now is None else slots.newest(watched)
        change = relative_change(now, before) if now is not None and before is not None else None
        self._scheduler.ran(step, change)

    def begin(self) -> None:
        """Begins a run, or starts over after all slots were dropped."""
        self._scheduler.begin()


def _refuse_weights(plan: Plan, check: PlanCheck, stream: str) -> None:
    for step, fits in enumerate(check.fits[stream]):
        if fits:
            raise PlanError(
                f"plan {plan.name!r}, stream {stream!r}, step {step}: {', '.join(sorted(fits))} is "
                "reused by weights that were fitted to these very steps; an adaptive run would "
                "take others. Leave adaptive off, or take a plan without weights."
            )


def _bounded(plan: Plan, check: PlanCheck, rungs: Sequence[Rung]) -> int:
    """What all slots hold at most, where that and the variants are within the plan's bounds."""
    variants = {rung.key for rung in rungs}
    if len(variants) > plan.max_variants:
        raise PlanError(
            f"plan {plan.name!r}: an adaptive run may need {len(variants)} variants; the plan "
            f"allows {plan.max_variants}. Raise max_variants, or leave adaptive off."
        )
    held = max(_held_bytes(check, rung) for rung in rungs)
    if plan.max_cache_bytes is not None and held > plan.max_cache_bytes:
        raise PlanError(
            f"plan {plan.name!r}: an adaptive run holds every slot all the time, {held} bytes; "
            f"max_cache_bytes allows {plan.max_cache_bytes}. Raise it, or leave adaptive off."
        )
    return held


def _held_bytes(check: PlanCheck, rung: Rung) -> int:
    return sum(n * check.slot_bytes[slot] for slot, n in _counts(check, rung).items())


def _counts(check: PlanCheck, rung: Rung) -> dict[str, int]:
    """How many values each slot holds at most while the rung's graph runs."""
    needed = needed_values(rung.key, rung.orders, check.depth)
    return {slot: count + (slot in rung.key.writes) for slot, count in needed.items()}


def _arena(check: PlanCheck, rungs: Sequence[Rung]) -> Arena:
    counts = [_counts(check, rung) for rung in rungs]
    most = {slot: max(each.get(slot, 0) for each in counts) for slot in check.slots}
    return arena_of(check.slot_parts, most, dict.fromkeys(check.slots, frozenset((0,))))
