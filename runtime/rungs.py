"""The choices of an adaptive run: every kind of row of a plan, each with the graph it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .action import Action
from .region_info import RegionInfo, slot_region
from .variant_key import VariantKey

if TYPE_CHECKING:
    from .plan import Plan
    from .plan_check import PlanCheck


_Cells = tuple[tuple[str, Action], ...]


@dataclass(frozen=True)
class Rung:
    """One kind of row.

    Args:
        row: region -> action.
        key: of its graph, which writes every slot that any rung reads and this one executes.
        steps: at which it may be used; None: at all, for it computes or reuses what it leaves out.
        skipped_flops: of the regions it does not execute.
    """

    row: Mapping[str, Action]
    key: VariantKey
    steps: frozenset[int] | None
    skipped_flops: int

    @property
    def cells(self) -> _Cells:
        """The row, to look it up by."""
        return tuple(sorted(self.row.items()))

    @property
    def orders(self) -> Mapping[str, int]:
        """What it extrapolates, and by which order."""
        return {name: action.order for name, action in self.row.items() if action.order}

    def allowed(self, step: int) -> bool:
        """Whether a step may take it at all."""
        return self.steps is None or step in self.steps


def rungs_of(
    plan: Plan, check: PlanCheck, stream: str, regions: Sequence[RegionInfo]
) -> tuple[Rung, ...]:
    """The rungs of one stream of a proven plan, what skips most first; the last computes all.

    A row that prunes or bypasses stays where the plan has it: what it errs by does not follow from
    how long ago something was computed.
    """
    by_name = {region.name: region for region in regions}
    found: dict[_Cells, set[int]] = {(): set()}
    relevance: dict[_Cells, tuple[str, ...]] = {}
    skipped: dict[_Cells, int] = {(): 0}
    for step, row in enumerate(plan.streams[stream]):
        key = check.keys[stream][step]
        if row is None or key is None:
            continue
        cells = tuple(sorted(row.items()))
        found.setdefault(cells, set()).add(step)
        relevance[cells] = key.relevance
        skipped[cells] = check.skipped_flops[stream][step]
    rungs: list[Rung] = []
    for cells, steps in found.items():
        row = dict(cells)
        writes = [slot for slot in sorted(check.depth) if executes(row, slot_region(slot), by_name)]
        reuses = all(action.kind == "reuse" for action in row.values())
        key = VariantKey(cells, tuple(writes), plan.exact, relevance.get(cells, ()))
        rungs.append(Rung(row, key, None if reuses else frozenset(steps), skipped[cells]))
    return tuple(sorted(rungs, key=lambda rung: -rung.skipped_flops))


def executes(row: Mapping[str, Action], name: str, regions: Mapping[str, RegionInfo]) -> bool:
    """Whether a row computes the whole of a region."""
    around: str | None = name
    while around is not None and around not in row:
        around = regions[around].parent
    return around is None
