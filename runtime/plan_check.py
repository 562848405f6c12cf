"""The proof that a plan can be carried out, and what follows from it: who writes, what lives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .action import Action
from .errors import PlanError
from .levels import log_sigma
from .plan import Plan, RegionInfo
from .region_info import bytes_of, relevance_slot
from .variant_key import VariantKey


@dataclass(frozen=True)
class PlanCheck:
    """What a proven plan implies.

    Args:
        variants: the distinct graphs, in the order of first use.
        slots: sorted names of all regions whose slot is ever read.
        peak_bytes: what all slots together hold at most: the sum of the streams' own peaks, which
            bounds every way of interleaving them.
        keys: per stream and step the graph, None where the stream does not run.
        live: per stream and step the slots that a later step still reads, and how many of each
            slot's newest values.
        orders: per stream and step the regions that are extrapolated, and by which order.
        depth: per slot the most values that it holds at once.
        skipped_flops: per stream and step, of the regions that are reused or bypassed, and of the
            tokens of pruned ones that are not kept.
    """

    variants: tuple[VariantKey, ...]
    slots: tuple[str, ...]
    peak_bytes: int
    keys: Mapping[str, tuple[VariantKey | None, ...]]
    live: Mapping[str, tuple[Mapping[str, int], ...]]
    orders: Mapping[str, tuple[Mapping[str, int], ...]]
    depth: Mapping[str, int]
    skipped_flops: Mapping[str, tuple[int, ...]]


def check(plan: Plan, regions: Sequence[RegionInfo]) -> PlanCheck:
    """Proves the plan; see `Plan.check`."""
    by_name = {region.name: region for region in regions}
    proofs = {stream: _StreamProof(plan, stream, by_name) for stream in plan.streams}
    keys = {stream: proof.keys() for stream, proof in proofs.items()}
    variants = tuple(dict.fromkeys(key for row in keys.values() for key in row if key is not None))
    if len(variants) > plan.max_variants:
        beyond = variants[plan.max_variants]
        stream, step = next(
            (stream, row.index(beyond)) for stream, row in keys.items() if beyond in row
        )
        raise PlanError(
            f"plan {plan.name!r}, stream {stream!r}, step {step}: variant {beyond.name!r} is one "
            f"more than the {plan.max_variants} that the plan allows, of {len(variants)}; raise "
            "max_variants or let more steps share their actions."
        )
    peak_bytes = sum(max(proof.held_bytes()) for proof in proofs.values())
    if plan.max_cache_bytes is not None and peak_bytes > plan.max_cache_bytes:
        peaks = [f"{max(proof.held_bytes())} at {proof.fullest()}" for proof in proofs.values()]
        raise PlanError(
            f"plan {plan.name!r}: its slots hold up to {peak_bytes} bytes, {' and '.join(peaks)}; "
            f"max_cache_bytes allows {plan.max_cache_bytes}. Raise it or reuse fewer regions."
        )
    depth: dict[str, int] = {}
    for proof in proofs.values():
        depth |= {name: max(held, depth.get(name, 0)) for name, held in proof.depth.items()}
    return PlanCheck(
        variants=variants,
        slots=tuple(sorted(depth)),
        peak_bytes=peak_bytes,
        keys=keys,
        live={stream: tuple(proof.live) for stream, proof in proofs.items()},
        orders={stream: proof.orders() for stream, proof in proofs.items()},
        depth=depth,
        skipped_flops={stream: proof.skipped_flops() for stream, proof in proofs.items()},
    )


class _StreamProof:
    """One stream of a plan: finds for every read the steps whose writes it needs."""

    def __init__(self, plan: Plan, stream: str, regions: Mapping[str, RegionInfo]) -> None:
        self.plan = plan
        self.stream = stream
        self.regions = regions
        self.rows = plan.streams[stream]
        self.writes: list[set[str]] = [set() for _ in self.rows]
        self.live: list[dict[str, int]] = [{} for _ in self.rows]
        self.depth: dict[str, int] = {}  # how many values of the slot the deepest read needs
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
        for held in range(sources[0], step):
            newest = sum(source <= held for source in sources)
            self.live[held][slot] = max(newest, self.live[held].get(slot, 0))

    def _relevance(self, row: Mapping[str, Action]) -> tuple[str, ...]:
        """The slots that say which tokens a row's pruned regions keep."""
        pruned = [name for name, action in row.items() if action.kind == "prune"]
        regions = {self.regions[name].relevance for name in pruned}
        return tuple(sorted(relevance_slot(name) for name in regions if name is not None))

    def _prove_apart(self, step: int, name: str, action: Action, computed: Sequence[int]) -> None:
        if not action.order:
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

    def held_bytes(self) -> tuple[int, ...]:
        """What the stream's slots hold at each step, with what it reads and what it writes."""
        held: list[int] = []
        for row, live in zip(self.rows, self.live, strict=True):
            values = dict(live)
            for name, action in (row or {}).items():
                if action.reads:
                    values[name] = max(action.order + 1, values.get(name, 0))
            for slot in self._relevance(row or {}):
                values.setdefault(slot, 1)
            held.append(sum(bytes_of(slot, self.regions) * n for slot, n in values.items()))
        return tuple(held)

    def fullest(self) -> str:
        """The step at which the slots hold most."""
        held = self.held_bytes()
        return f"step {held.index(max(held))} of stream {self.stream!r}"

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
