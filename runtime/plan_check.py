"""The proof that a plan can be carried out, and what follows from it: who writes, what lives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .action import Action
from .lifetime import Lifetime, held_values
from .plan_limits import bounded_bytes, capped_variants
from .region_info import RegionInfo, parts_of
from .stream_proof import StreamProof, refuse_unknown
from .variant_key import VariantKey

if TYPE_CHECKING:
    from .plan import Plan


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
        fits: per stream and step the regions that are reused by the plan's own weights.
        depth: per slot the most values that it holds at once.
        skipped_flops: per stream and step, of the regions that are reused or bypassed, and of the
            tokens of pruned ones that are not kept.
        lifetimes: per stream of every value that is read.
        slot_parts: per slot what each tensor of one value of it takes, as it is stored.
        held_bytes: per stream and step what its slots hold while the step runs, with what it reads
            and what it writes.
        storage: region -> storage, of those that are not kept in the compute dtype.
    """

    variants: tuple[VariantKey, ...]
    slots: tuple[str, ...]
    peak_bytes: int
    keys: Mapping[str, tuple[VariantKey | None, ...]]
    live: Mapping[str, tuple[Mapping[str, int], ...]]
    orders: Mapping[str, tuple[Mapping[str, int], ...]]
    fits: Mapping[str, tuple[Mapping[str, Action], ...]]
    depth: Mapping[str, int]
    skipped_flops: Mapping[str, tuple[int, ...]]
    lifetimes: Mapping[str, tuple[Lifetime, ...]]
    slot_parts: Mapping[str, tuple[int, ...]]
    held_bytes: Mapping[str, tuple[int, ...]]
    storage: Mapping[str, str]

    @property
    def slot_bytes(self) -> dict[str, int]:
        """Per slot what one value of it takes."""
        return {slot: sum(parts) for slot, parts in self.slot_parts.items()}


def check(plan: Plan, regions: Sequence[RegionInfo], *, offload: bool = False) -> PlanCheck:
    """Proves the plan; see `Plan.check`."""
    by_name = {region.name: region for region in regions}
    for name in plan.storage:
        refuse_unknown(name, by_name, f"the storage of plan {plan.name!r}")
    proofs = {stream: StreamProof(plan, stream, by_name) for stream in plan.streams}
    keys = {stream: proof.keys() for stream, proof in proofs.items()}
    variants = capped_variants(plan, keys)
    depth: dict[str, int] = {}
    for proof in proofs.values():
        depth |= {name: max(held, depth.get(name, 0)) for name, held in proof.depth.items()}
    slot_parts = {slot: parts_of(slot, by_name, plan.storage) for slot in sorted(depth)}
    lifetimes = {stream: proof.lifetimes() for stream, proof in proofs.items()}
    held = {
        stream: held_values(
            values, [row is not None for row in plan.streams[stream]], offload=offload
        )
        for stream, values in lifetimes.items()
    }
    slot_bytes = {slot: sum(parts) for slot, parts in slot_parts.items()}
    held_bytes, peak_bytes = bounded_bytes(plan, held, slot_bytes)
    return PlanCheck(
        variants=variants,
        slots=tuple(sorted(depth)),
        peak_bytes=peak_bytes,
        keys=keys,
        live={stream: tuple(proof.live) for stream, proof in proofs.items()},
        orders={stream: proof.orders() for stream, proof in proofs.items()},
        fits={stream: proof.fits() for stream, proof in proofs.items()},
        depth=depth,
        skipped_flops={stream: proof.skipped_flops() for stream, proof in proofs.items()},
        lifetimes=lifetimes,
        slot_parts=slot_parts,
        held_bytes=held_bytes,
        storage={name: each for name, each in plan.storage.items() if name in depth},
    )
