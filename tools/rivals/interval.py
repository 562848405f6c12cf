"""The whole step reused at a uniform interval."""

from __future__ import annotations

from collections.abc import Sequence

from turbo4d.runtime.plan import RegionInfo
from turbo4d.tools.rivals.schedule import evenly, every
from turbo4d.tools.rivals.setting import Setting, core_of, reusing, static

SYSTEM = "uniform interval"
_WARMUPS = (1, 3)


def settings(steps: int, regions: Sequence[RegionInfo]) -> list[Setting]:
    """Every n-th step computed, and in between every number of evenly spaced steps."""
    core = (core_of(regions),)
    spaced = [
        (f"{count} of {steps} steps", evenly(steps, count)) for count in range(2, steps)
    ]  # fmt: skip
    regular = [
        (f"every {interval} steps, warm-up {warmup}", every(steps, interval, warmup))
        for warmup in _WARMUPS
        for interval in range(2, steps // 2)
    ]
    return [static(SYSTEM, knob, reusing(computed, core)) for knob, computed in regular + spaced]
