"""steering: what an adaptive run adds to a stream: its choices as engines, its measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .adaptive import Bounds, Decision, Scheduler
from .change import relative_change
from .errors import PlanError
from .lane import Cell
from .levels import to_sigma
from .region_info import bytes_of
from .rungs import Rung, rungs_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .engine import Engine
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
        rungs = rungs_of(plan, check, stream, regions)
        _refuse_beyond(plan, check, rungs, {region.name: region for region in regions})
        held = dict(check.depth)
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

    def ran(self, step: int, slots: Slots) -> None:
        """Notes that the step chosen last has run, and measures what it computed anew."""
        watched = self._scheduler.watched
        values = () if watched is None else slots.latest(watched, 2, step)
        change = relative_change(values[1][0], values[0][0]) if len(values) == 2 else None
        self._scheduler.ran(step, change)

    def begin(self) -> None:
        """Begins a run, or starts over after all slots were dropped."""
        self._scheduler.begin()


def _refuse_beyond(
    plan: Plan, check: PlanCheck, rungs: Sequence[Rung], regions: Mapping[str, RegionInfo]
) -> None:
    variants = {rung.key for rung in rungs}
    if len(variants) > plan.max_variants:
        raise PlanError(
            f"plan {plan.name!r}: an adaptive run may need {len(variants)} variants; the plan "
            f"allows {plan.max_variants}. Raise max_variants, or leave adaptive off."
        )
    held = sum(bytes_of(slot, regions) * depth for slot, depth in check.depth.items())
    if plan.max_cache_bytes is not None and held > plan.max_cache_bytes:
        raise PlanError(
            f"plan {plan.name!r}: an adaptive run holds every slot all the time, {held} bytes; "
            f"max_cache_bytes allows {plan.max_cache_bytes}. Raise it, or leave adaptive off."
        )
