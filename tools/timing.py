"""Timed runs that alternate, and the median and spread of what they took."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs of one job."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The fastest and the slowest."""
        return min(self.seconds), max(self.seconds)

    def __str__(self) -> str:
        low, high = self.spread
        return f"{self.median:.3g} s ({low:.3g} to {high:.3g})"


@dataclass(frozen=True)
class Timed:
    """What a job returned the first time, and what it took each time."""

    result: Tensor
    timing: Timing
    repeats: bool  # every run returned the same bits


def alternate(
    jobs: Mapping[str, Callable[[], Tensor]],
    runs: int,
    device: torch.device,
    say: Callable[[str], None],
) -> dict[str, Timed]:
    """Run every job `runs` times, in turn, each second round in the opposite order.

    Args:
        jobs: name -> what is timed, from its call to its result on the device.
        runs: rounds.
        device: waited for before each reading of the clock.
        say: told what is going on.
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    results: dict[str, Tensor] = {}
    repeats = dict.fromkeys(jobs, True)
    for turn in range(runs):
        for name in _order(list(jobs), turn):
            say(f"run {turn + 1} of {runs}: {name}")
            result, taken = timed(jobs[name], device)
            seconds[name].append(taken)
            first = results.setdefault(name, result)
            repeats[name] &= torch.equal(first, result)
    return {
        name: Timed(results[name], Timing(tuple(seconds[name])), repeats[name]) for name in jobs
    }


def timed(job: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, float]:
    """A job's result, and the seconds it took on its device."""
    _wait(device)
    begun = time.perf_counter()
    result = job()
    _wait(device)
    return result, time.perf_counter() - begun


def _order(names: Sequence[str], turn: int) -> Sequence[str]:
    return names if turn % 2 == 0 else names[::-1]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
