"""What a session or a runner says about itself when asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, TypedDict

from .adaptive import Decision
from .events import Event, Events

if TYPE_CHECKING:
    from .execution import Execution


class Report(TypedDict):
    """Everything in it is JSON.

    Fields:
        plan: name of the plan, None before the first call.
        steps: of the plan.
        variants: how many graphs the plan needs.
        engine_calls: of all variants; the prologue is none.
        calls_by_variant: counted where the engines are called; "prologue" among them.
        cache_peak_bytes: what all slots together took at most, on the device.
        cache_host_bytes: what those that waited on the host took there at most.
        prologue_bytes: what the prologue's values of all streams together held at most.
        weights_bytes: of all weights, each once.
        events: what was done otherwise than planned, and why.
        decisions: of an adaptive run, what each step did, and why.
    """

    plan: str | None
    steps: int | None
    variants: int
    engine_calls: int
    calls_by_variant: dict[str, int]
    cache_peak_bytes: int
    cache_host_bytes: int
    prologue_bytes: int
    weights_bytes: int
    events: list[dict[str, str | int | None]]
    decisions: list[Decision]


def report_of(
    calls: Counter[str],
    events: Events,
    executions: Sequence[Execution],
    *,
    weights_bytes: int,
    prologue_bytes: int = 0,
    notes: Sequence[Event] = (),
) -> Report:
    """The report of these executions together.

    Args:
        calls: by variant.
        events: of all.
        executions: each of one plan on one denoiser.
        weights_bytes: of their denoisers.
        prologue_bytes: what the prologue's values held at most outside any plan.
        notes: events that are true of every run, before the others.
    """
    held = sum(execution.prologue_bytes for execution in executions)
    plans = [execution.plan for execution in executions if execution.plan is not None]
    variants = {key for execution in executions for key in execution.variants}
    return Report(
        plan=plans[0].name if plans else None,
        steps=plans[0].steps if plans else None,
        variants=len(variants),
        engine_calls=calls.total() - calls["prologue"],
        calls_by_variant=dict(sorted(calls.items())),
        cache_peak_bytes=sum(execution.cache_peak_bytes for execution in executions),
        cache_host_bytes=sum(execution.cache_host_bytes for execution in executions),
        prologue_bytes=max(prologue_bytes, held),
        weights_bytes=weights_bytes,
        events=[*map(asdict, notes), *events.as_dicts()],
        decisions=[decision for execution in executions for decision in execution.decisions],
    )


def summary(report: Report) -> str:
    """The report in one line, for the log."""
    calls = ", ".join(f"{name} {count}" for name, count in report["calls_by_variant"].items())
    kinds = Counter(str(event["kind"]) for event in report["events"])
    events = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    return (
        f"plan {report['plan']!r}, {report['steps']} steps; calls: {calls or 'none'}; slots of up "
        f"to {report['cache_peak_bytes']} bytes, prologue {report['prologue_bytes']}; events: "
        f"{events or 'none'}."
    )
