"""predicted-time: how long a variant, the prologue and a whole plan take on a machine.

What an engine executes is counted in the graph that would run. What the session does around it is
counted too: it reads every slot that was written once more (`finite_watch`), encodes and decodes
those that are stored in a smaller form, and extrapolates those that are reused with an order.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.fresh_memory import largest_value
from turbo4d.compiler.machine import Machine
from turbo4d.compiler.specialise import Variant, specialise
from turbo4d.compiler.work import Work, work_of_graph
from turbo4d.runtime.region_info import bytes_of

if TYPE_CHECKING:
    from turbo4d.compiler.analysis import Analysis
    from turbo4d.runtime.plan_check import PlanCheck
    from turbo4d.runtime.variant_key import VariantKey


def variant_work(analysis: Analysis, key: VariantKey) -> Work:
    """What one call of a variant asks of a machine; its graph is made at the first request.

    Raises:
        PlanError: an action that this version cannot make.
    """
    known = _known(analysis)
    return known[key] if key in known else note_work(analysis, specialise(analysis, key))


def note_work(analysis: Analysis, variant: Variant) -> Work:
    """As `variant_work`, of a variant that is already made."""
    largest = largest_value(analysis.capture.module.graph)
    found = _known(analysis)[variant.key] = work_of_graph(variant.module.graph, largest)
    return found


def variant_seconds(analysis: Analysis, key: VariantKey, machine: Machine) -> float:
    """Predicted time of one call of a variant's engine."""
    return machine.seconds(variant_work(analysis, key))


def uncached_seconds(analysis: Analysis, machine: Machine) -> float:
    """Predicted time of one call of the network as it was captured."""
    return machine.seconds(work_of_graph(analysis.capture.module.graph))


def prologue_seconds(analysis: Analysis, machine: Machine) -> float:
    """Predicted time of what a run computes once for each of its streams."""
    return machine.seconds(work_of_graph(exact_form(analysis).prologue.module.graph))


def step_seconds(
    analysis: Analysis, check: PlanCheck, stream: str, step: int, machine: Machine
) -> float:
    """Predicted time of one step, with its slots' upkeep; 0 where the stream does not run."""
    key = check.keys[stream][step]
    if key is None:
        return 0.0
    orders = check.orders[stream][step]
    return variant_seconds(analysis, key, machine) + machine.seconds(
        _upkeep(analysis, check, key, orders)
    )


def _upkeep(
    analysis: Analysis, check: PlanCheck, key: VariantKey, orders: Mapping[str, int]
) -> Work:
    """What the session does with the slots of one step."""
    regions = {region.name: region.info for region in analysis.regions}
    total = Work()
    for name in key.writes:
        total += Work(bytes=bytes_of(name, regions, {}), calls=1)
    for name in (*key.writes, *key.reads):
        if name in check.storage:
            # Encoded or decoded: one form is read, the other written.
            full, stored = bytes_of(name, regions, {}), bytes_of(name, regions, check.storage)
            total += Work(bytes=full + stored, calls=1)
    for name, order in orders.items():
        # Of two values at a time, the sum so far and the next, comes a third.
        total += Work(bytes=3 * order * regions[name].slot_bytes, calls=order)
    return total


@dataclass(frozen=True)
class PlanTimes:
    """What a plan is predicted to take on a machine.

    Args:
        machine: which.
        by_step: seconds of each step of the first stream; 0 where it does not run.
        prologue_s: once for each stream.
        run_s: all steps of all streams, with their prologues.
        uncached_s: of as many calls of the network as it was captured.
    """

    machine: Machine
    by_step: tuple[float, ...]
    prologue_s: float
    run_s: float
    uncached_s: float

    def as_json(self) -> dict[str, Any]:
        """As explain prints them."""
        return {
            "machine": self.machine.as_json(),
            "seconds_by_step": list(self.by_step),
            "prologue_seconds": self.prologue_s,
            "seconds": self.run_s,
            "uncached_seconds": self.uncached_s,
        }


def plan_times(analysis: Analysis, check: PlanCheck, machine: Machine) -> PlanTimes:
    """What a plan is predicted to take, step by step and in all."""
    stream, keys = next(iter(check.keys.items()))
    calls = sum(key is not None for own in check.keys.values() for key in own)
    return PlanTimes(
        machine=machine,
        by_step=tuple(
            step_seconds(analysis, check, stream, step, machine) for step in range(len(keys))
        ),
        prologue_s=prologue_seconds(analysis, machine) if _exact(check) else 0.0,
        run_s=plan_seconds(analysis, check, machine),
        uncached_s=calls * uncached_seconds(analysis, machine),
    )


def plan_seconds(analysis: Analysis, check: PlanCheck, machine: Machine) -> float:
    """Predicted time of a run: all steps of all streams, and a prologue for each stream."""
    once = prologue_seconds(analysis, machine) * len(check.keys) if _exact(check) else 0.0
    return once + sum(
        step_seconds(analysis, check, stream, step, machine)
        for stream, keys in check.keys.items()
        for step in range(len(keys))
    )


def _exact(check: PlanCheck) -> bool:
    return any(key.exact for key in check.variants)


# By identity, as the exact forms: an analysis holds mappings, so it has no hash.
_WORK: dict[int, dict[VariantKey, Work]] = {}
_LOCK = threading.Lock()


def _known(analysis: Analysis) -> dict[VariantKey, Work]:
    with _LOCK:
        if id(analysis) not in _WORK:
            _WORK[id(analysis)] = {}
            weakref.finalize(analysis, _WORK.pop, id(analysis), None)
        return _WORK[id(analysis)]
