"""The proof of one stream of a plan: for every read the steps whose writes it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from .action import Action
from .errors import PlanError
from .levels import log_sigma
from .lifetime import Lifetime
from .region_info import RegionInfo, relevance_slot
from .variant_key import VariantKey

if TYPE_CHECKING:
    from .plan import Plan


class StreamProof:
    """One stream of a plan: finds for every read the steps whose writes it needs."""

    def __init__(self, plan: Plan, stream: str, regions: Mapping[str, RegionInfo]) -> None:
        self.plan = plan
        self.stream = stream
        self.regions = regions
        self.rows = plan.streams[stream]
        self.writes: list[set[str]] = [set() for _ in self.rows]
        self.live: list[dict[str, int]] = [{} for _ in self.rows]
        self.depth: dict[str, int] = {}  # how many values of the slot the deepest read needs
        self.readers: dict[tuple[str, int], set[int]] = {}  # of the value of a slot and a step
        computed: dict[str, list[int]] = {name: [] for name in regions}
        for step, row in enumerate(self.rows):
            if row is not None:
                self._prove_step(step, row, computed)

    def _prove_step(
        self, step: int, row: Mapping[str, Action], computed: Mapping[str, list[int]]
    ) -> None:
        for name, action in row.items():
            self._prove_action(step, name, action, row)
            if action.reads:
                self._prove_read(step, name, action.order + 1, computed[name])
                self._prove_apart(step, name, action, computed[name])
            if action.kind == "prune":
                self._prove_relevance(step, name, computed)
        for name in self.regions:
            if name not in row and self._holder(name, row) is None:
                computed[name].append(step)

    def _prove_action(
        self, step: int, name: str, action: Action, row: Mapping[str, Action]
    ) -> None:
        refuse_unknown(name, self.regions, self._cell(step, name))
        outer = self._holder(name, row)
        if outer is not None:
            raise PlanError(
                f"{self._cell(step, name)}: {action} inside {outer!r}, which is {row[outer]}; "
                "name the outer region alone."
            )
        if action.kind == "bypass" and not self.regions[name].residual:
            raise PlanError(
                f"{self._cell(step, name)}: bypass of a region that adds nothing to its entry; "
                "only a residual region can be left out."
            )
        if action.sample and self.regions[name].kind != "step":
            raise PlanError(
                f"{self._cell(step, name)}: {action} adds the sample to a region within the "
                "network; only the whole step takes a weight of the sample."
            )
        if action.kind == "prune" and self.regions[name].relevance is None:
            raise PlanError(
                f"{self._cell(step, name)}: {action} of a region that cannot be pruned: "
                f"{self.regions[name].unprunable}. Compute or reuse it."
            )

    def _prove_read(self, step: int, name: str, depth: int, computed: Sequence[int]) -> None:
        sources = computed[-depth:]
        if len(sources) < depth:
            times = "first" if depth == 1 else f"{depth} times first"
            raise PlanError(
                f"{self._cell(step, name)}: its slot is read before it is written; compute the "
                f"region {times}."
            )
        age = step - sources[-1]
        if age > self.plan.max_age:
            raise PlanError(
                f"{self._cell(step, name)}: its slot is {age} steps old; the plan allows "
                f"{self.plan.max_age}. Refresh at step {sources[-1] + self.plan.max_age} or raise "
                "max_age."
            )
        self.depth[name] = max(depth, self.depth.get(name, 0))
        self._hold(step, name, sources)

    def _prove_relevance(self, step: int, name: str, computed: Mapping[str, Sequence[int]]) -> None:
        region = self.regions[name].relevance
        if region is None:
            return
        slot, sources = relevance_slot(region), computed[region][-1:]
        if not sources:
            raise PlanError(
                f"{self._cell(step, name)}: the slot {slot!r}, which says which tokens matter, is "
                f"read before it is written; compute {region!r} first."
            )
        age = step - sources[0]
        if age > self.plan.max_age:
            raise PlanError(
                f"{self._cell(step, name)}: the slot {slot!r}, which says which tokens matter, is "
                f"{age} steps old; the plan allows {self.plan.max_age}. Compute {region!r} at step "
                f"{sources[0] + self.plan.max_age} or raise max_age."
            )
        self.depth[slot] = 1
        self._hold(step, slot, sources)

    def _hold(self, step: int, slot: str, sources: Sequence[int]) -> None:
        """Note that a step reads what some steps write."""
        for source in sources:
            self.writes[source].add(slot)
            self.readers.setdefault((slot, source), set()).add(step)
        for held in range(sources[0], step):
            newest = sum(source <= held for source in sources)
            self.live[held][slot] = max(newest, self.live[held].get(slot, 0))

    def _relevance(self, row: Mapping[str, Action]) -> tuple[str, ...]:
        """The slots that say which tokens a row's pruned regions keep."""
        pruned = [name for name, action in row.items() if action.kind == "prune"]
        regions = {self.regions[name].relevance for name in pruned}
        return tuple(sorted(relevance_slot(name) for name in regions if name is not None))

    def _prove_apart(self, step: int, name: str, action: Action, computed: Sequence[int]) -> None:
        if not action.order or action.mix:
            return
        plan, places = self.plan, [*computed[-action.order - 1 :], step]
        for one, other in pairwise(places):
            levels = plan.levels[one], plan.levels[other]
            first, second = (log_sigma(level, plan.level_unit) for level in levels)
            if first <= second:
                raise PlanError(
                    f"{self._cell(step, name)}: {action} extrapolates over the levels of steps "
                    f"{one} and {other}, {levels[0]:g} and {levels[1]:g}, which are one in sigma; "
                    "reuse it with order 0."
                )

    def _holder(self, name: str, row: Mapping[str, Action]) -> str | None:
        """The region around this one that the row does not compute."""
        outer = self.regions[name].parent
        while outer is not None and outer not in row:
            outer = self.regions[outer].parent
        return outer

    def _cell(self, step: int, name: str) -> str:
        return f"plan {self.plan.name!r}, stream {self.stream!r}, step {step}, region {name!r}"

    def keys(self) -> tuple[VariantKey | None, ...]:
        """The graph of each step."""
        return tuple(
            None
            if row is None
            else VariantKey(
                tuple(sorted(row.items())),
                tuple(sorted(self.writes[step])),
                self.plan.exact,
                self._relevance(row),
            )
            for step, row in enumerate(self.rows)
        )

    def orders(self) -> tuple[Mapping[str, int], ...]:
        """What each step extrapolates."""
        return tuple(
            {name: action.order for name, action in (row or {}).items() if action.order}
            for row in self.rows
        )

    def fits(self) -> tuple[Mapping[str, Action], ...]:
        """What each step mixes by weights of its own."""
        return tuple(
            {name: action for name, action in (row or {}).items() if action.mix}
            for row in self.rows
        )

    def lifetimes(self) -> tuple[Lifetime, ...]:
        """Every value that any step reads, by the step that writes it, then by slot."""
        found = sorted(self.readers.items(), key=lambda item: (item[0][1], item[0][0]))
        return tuple(
            Lifetime(slot, written, tuple(sorted(reads))) for (slot, written), reads in found
        )

    def skipped_flops(self) -> tuple[int, ...]:
        """Of the regions each step does not execute, and of the tokens it does not keep."""
        return tuple(
            sum(self._skipped(self.regions[name], action) for name, action in (row or {}).items())
            for row in self.rows
        )

    def _skipped(self, region: RegionInfo, action: Action) -> int:
        if action.keep is None:
            return region.flops
        return round((1 - action.keep) * region.prunable_flops)


def refuse_unknown(name: str, regions: Mapping[str, RegionInfo], cell: str) -> None:
    """Refuses the name of a region that the model has not; a note says which cell names it.

    Raises:
        PlanError: where it has not.
    """
    if name in regions:
        return
    kinds = {region.kind for region in regions.values()}
    noun = f"{kinds.pop()}s" if len(kinds) == 1 else "regions"
    has = "it has none."
    if regions:
        listed = ", ".join(repr(known) for known in sorted(regions)[:8])
        has = f"it has {len(regions)} {noun}: {listed}{', ...' if len(regions) > 8 else '.'}"
    error = PlanError(f"region {name!r} is unknown to this model; {has}")
    error.add_note(f"It is named at {cell}.")
    raise error
