"""What calls outside sessions did, asked of the denoiser that was called."""

from __future__ import annotations

from collections import Counter

from .bindings import Bindings
from .errors import OptionError
from .events import Events
from .passed_on import passed_on
from .report import Report, report_of
from .runner import bare_runs


def report(fast: object) -> Report:
    """What calls of a denoiser outside sessions did in this thread, as JSON takes it.

    `run.report()` says the same of a session.

    Args:
        fast: what torch.compile(..., backend="turbo4d") returned, or a loaded bundle.

    Returns:
        What ran since the first call, and in `events` why a call did not follow the plan, or which
        graphs were left as they are; no calls where there were none.

    Raises:
        OptionError: where `fast` is no denoiser.
    """
    if not callable(fast):
        raise OptionError(f"report: {type(fast).__name__} is no denoiser; it is not callable.")
    bindings, events, calls = Bindings(fast), Events(), Counter[str]()
    found = [
        (runner, bare)
        for runner, bare in bare_runs()
        # Weights that are gone are no module's any more.
        if len(bare.weights) == runner.signature.weight_count or fast is runner
        if bindings.owns_calls(runner, bare.weights)
    ]
    for left in passed_on():
        if left.weights and bindings.owns(left.weights):
            events.add("piece-passed-on", left.reason)
    for _, bare in found:
        events.extend(bare.events)
        calls.update(bare.counts.by_variant)
    return report_of(
        calls,
        events,
        [bare.execution for _, bare in found if bare.execution is not None],
        weights_bytes=max((runner.signature.weights_bytes for runner, _ in found), default=0),
        prologue_bytes=sum(bare.full.prologue_bytes for _, bare in found),
        notes=[note for runner, _ in found for note in runner.notes],
    )
