"""timed: a plan's run beside the uncached one, in turn, and what its slots held."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from turbo4d.runtime.plan import Plan

if TYPE_CHECKING:
    from turbo4d.compiler.calibrate.harness import Harness

RUNS = 3


@dataclass(frozen=True)
class Timed:
    """Medians of runs that alternate.

    Args:
        seconds: of the plan.
        uncached_seconds: of the plain network.
        cache_peak_bytes: what the slots held at most.
    """

    seconds: float
    uncached_seconds: float
    cache_peak_bytes: int


def timed(
    harness: Harness, plan: Plan, example: object, say: Callable[[float, str], None]
) -> Timed:
    """Runs a plan and the uncached network in turn.

    Args:
        harness: of the network.
        plan: for it.
        example: to sample.
        say: told what is being done.
    """
    harness.sample(example, plan)
    ours: list[float] = []
    plain: list[float] = []
    for run in range(RUNS):
        say(1.0, f"timed run {run + 1} of {RUNS}")
        harness.forget(example)
        plain.append(_seconds(lambda: harness.reference(example)))
        ours.append(_seconds(lambda: harness.sample(example, plan)))
    peak = harness.report["cache_peak_bytes"] if harness.report else 0
    return Timed(statistics.median(ours), statistics.median(plain), peak)


def _seconds(job: Callable[[], object]) -> float:
    _wait()
    begun = time.perf_counter()
    job()
    _wait()
    return time.perf_counter() - begun


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
