"""The proof that a plan can be carried out, and what follows from it: who writes, what lives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .action import Action
from .errors import PlanError
from .plan import Plan, RegionInfo
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
        live: per stream and step the slots that a later step still reads.
        skipped_flops: per stream and step, of the regions that are reused or bypassed.
    """

    variants: tuple[VariantKey, ...]
    slots: tuple[str, ...]
    peak_bytes: int
    keys: Mapping[str, tuple[VariantKey | None, ...]]
    live: Mapping[str, tuple[frozenset[str], ...]]
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
    return PlanCheck(
        variants=variants,
        slots=tuple(sorted({name for proof in proofs.values() for name in proof.depth})),
        peak_bytes=peak_bytes,
        keys=keys,
        live={stream: tuple(map(frozenset, proof.live)) for stream, proof in proofs.items()},
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
        self.live: list[set[str]] = [set() for _ in self.rows]
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
        for source in sources:
            self.writes[source].add(name)
        for held in range(sources[0], step):
            self.live[held].add(name)

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
                tuple(sorted(row.items())), tuple(sorted(self.writes[step])), self.plan.exact
            )
            for step, row in enumerate(self.rows)
        )

    def held_bytes(self) -> tuple[int, ...]:
        """What the stream's slots hold at each step, with what it reads and what it writes."""
        held = (
            self.live[step] | {name for name, action in (row or {}).items() if action.reads}
            for step, row in enumerate(self.rows)
        )
        sizes = {name: self.regions[name].slot_bytes * n for name, n in self.depth.items()}
        return tuple(sum(sizes[name] for name in names) for names in held)

    def fullest(self) -> str:
        """The step at which the slots hold most."""
        held = self.held_bytes()
        return f"step {held.index(max(held))} of stream {self.stream!r}"

    def skipped_flops(self) -> tuple[int, ...]:
        """Of the regions each step does not execute."""
        return tuple(
            sum(self.regions[n].flops for n, a in (row or {}).items() if a.kind != "prune")
            for row in self.rows
        )


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
