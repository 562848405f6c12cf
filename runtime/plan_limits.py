"""The caps of a proven plan, on variants and on bytes; a refusal names the cell it is at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .errors import PlanError
from .lifetime import Lifetime
from .region_info import slot_region
from .variant_key import VariantKey

if TYPE_CHECKING:
    from .plan import Plan

_Keys = Mapping[str, tuple[VariantKey | None, ...]]


def capped_variants(plan: Plan, keys: _Keys) -> tuple[VariantKey, ...]:
    """The distinct graphs, in the order of first use.

    Raises:
        PlanError: where they are more than the plan allows. Of the graphs that do anything but
            compute it names the one that the fewest steps share, the last of these, and of its
            cells the one that the fewest other steps have: what most likely stands out.
    """
    uses = Counter(key for row in keys.values() for key in row if key is not None)
    if len(uses) <= plan.max_variants:
        return tuple(uses)
    rarest = min((key for key in reversed(tuple(uses)) if _cells(key)), key=uses.__getitem__)
    stream, step = next((name, row.index(rarest)) for name, row in keys.items() if rarest in row)
    shared = Counter(cell for key, times in uses.items() for cell in _cells(key) * times)
    region = slot_region(min(_cells(rarest), key=shared.__getitem__)[0])
    raise PlanError(
        f"{_cell(plan, stream, step, region)}: variant {rarest.name!r}, of "
        f"{uses[rarest]} steps, is one of {len(uses)}; the plan allows {plan.max_variants}. Raise "
        "max_variants or let more steps share their actions."
    )


def bounded_bytes(
    plan: Plan,
    held: Mapping[str, Sequence[Sequence[Lifetime]]],
    slot_bytes: Mapping[str, int],
) -> tuple[dict[str, tuple[int, ...]], int]:
    """What the slots of each stream hold at each step, and all together at most.

    Args:
        plan: with the bound.
        held: per stream and step the values that lie on the device.
        slot_bytes: of one value of each slot.

    Raises:
        PlanError: where that is more than the plan allows. It names the step of the stream that
            holds most, and the slot that takes most of it.
    """
    sizes = {
        stream: tuple(sum(slot_bytes[value.slot] for value in values) for values in steps)
        for stream, steps in held.items()
    }
    peaks = {stream: max(steps) for stream, steps in sizes.items()}
    total = sum(peaks.values())
    if plan.max_cache_bytes is None or total <= plan.max_cache_bytes:
        return sizes, total
    stream = max(peaks, key=peaks.__getitem__)
    step = sizes[stream].index(peaks[stream])
    shares = Counter[str]()
    for value in held[stream][step]:
        shares[value.slot] += slot_bytes[value.slot]
    slot, largest = shares.most_common(1)[0]
    by_stream = [f"{peak} of stream {name!r}" for name, peak in peaks.items()]
    told = f", {' and '.join(by_stream)}" if len(peaks) > 1 else ""
    raise PlanError(
        f"{_cell(plan, stream, step, slot_region(slot))}: all slots hold up to {total} "
        f"bytes{told}; max_cache_bytes allows {plan.max_cache_bytes}. Here they hold "
        f"{peaks[stream]}, {largest} of them {slot!r}; raise the bound, store slots smaller or "
        "reuse fewer regions."
    )


def _cells(key: VariantKey) -> list[tuple[str, str]]:
    """What a graph does with each region that it does not just compute."""
    actions = [(name, str(action)) for name, action in key.actions]
    return actions + [(name, "written") for name in key.writes]


def _cell(plan: Plan, stream: str, step: int, region: str) -> str:
    return f"plan {plan.name!r}, stream {stream!r}, step {step}, region {region!r}"
