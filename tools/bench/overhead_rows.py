"""What turbo4d itself costs per step as rows: the runtime, torch's front door, and its guards.

A row's seconds are those of one step, with engines that do nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from turbo4d.tools.bench.row import RowSpec
from turbo4d.tools.bench.suite import SuiteOptions
from turbo4d.tools.measure.overhead import places, spent_us

GROUP = "overhead"
# Of full-size sv4d, about.
_PARAMETERS = 1900
_SYSTEMS: Mapping[str, str] = {
    "front_door": "torch.compile alone",
    "runtime": "turbo4d runtime",
    "front_door_unguarded": "torch.compile alone, no guards on modules",
    "front_door_and_runtime": "torch.compile and turbo4d",
    "front_door_and_runtime_unguarded": "torch.compile and turbo4d, no guards on modules",
}


def rows(options: SuiteOptions) -> list[RowSpec]:
    """A row for each place where a step's time may go."""
    parameters = 190 if options.quick else _PARAMETERS
    return [
        RowSpec(
            suite="cpu", group=GROUP, system=system, settings={"place": place,
            "parameters": parameters}, warmups=1, runs=options.runs or 20,
        )
        for place, system in _SYSTEMS.items()
    ]  # fmt: skip


class OverheadJob:
    """Runs of 20 steps with empty engines.

    Args:
        spec: with settings place and parameters.
    """

    device = torch.device("cpu")

    def __init__(self, spec: RowSpec) -> None:
        self._open: Callable[[], Any] = places(spec.settings["parameters"])[spec.settings["place"]]
        self._us: list[float] = []

    def first(self) -> None:
        """Compiles, and builds what is built once."""
        self._door, self._session = self._open()
        spent_us(self._door, self._session, 1)

    def run(self) -> Tensor:
        """One run of 20 steps."""
        self._us += spent_us(self._door, self._session, 1)[0]
        return torch.empty(0)

    def facts(self) -> dict[str, Any]:
        """Of one step: the median, the spread, and what most steps keep below."""
        tenths = statistics.quantiles(self._us, n=10)
        return {
            "latency_s": statistics.median(self._us) / 1e6,
            "latency_spread": [min(self._us) / 1e6, max(self._us) / 1e6],
            "p90_s": tenths[-1] / 1e6,
            "seconds": [],
            "speedup": None,
            "note": "seconds of one step",
        }

    def close(self) -> None:
        """Nothing is held."""
