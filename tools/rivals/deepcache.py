"""DeepCache: the deep branch reused, the shallow one computed at every step.

A depth is a level of the UNet; to its favour the core is one too, where nothing is computed.

Source: DeepCache (Ma et al. 2023), uniform 1:N and non-uniform 1:N.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from turbo4d.runtime.plan import RegionInfo
from turbo4d.tools.rivals.schedule import Computed, around, every
from turbo4d.tools.rivals.setting import Setting, core_of, levels_of, reusing, static

SYSTEM = "DeepCache"
_INTERVALS = (2, 3, 5, 10)
# Where the steps lie densest, as a share of the run, and how dense.
_CENTRES = (0.7, 0.75, 0.8)
_POWERS = (1.4, 2.0)
# A level leaves most of a step to compute, so that it is swept more coarsely.
_LEVEL_COUNTS, _LEVEL_CENTRES = (2, 3, 4, 6, 8), (0.75,)


def settings(steps: int, regions: Sequence[RegionInfo]) -> list[Setting]:
    """Both schedules at each depth; the deeper levels, which save least, at the uniform one."""
    core, levels = core_of(regions), levels_of(regions)
    schedules = [(name, one) for name in levels for one in _uniform(steps)]
    schedules += [(levels[0], one) for one in _dense(steps, _LEVEL_COUNTS, _LEVEL_CENTRES)]
    counts = range(2, max(3, steps * 3 // 5))
    schedules += [(core, one) for one in _dense(steps, counts, _CENTRES)]
    return [
        static(SYSTEM, f"{region}, {knob}", reusing(computed, [region]))
        for region, (knob, computed) in schedules
    ]


def _uniform(steps: int) -> Iterator[tuple[str, Computed]]:
    for interval in _INTERVALS:
        yield f"every {interval} steps", every(steps, interval)


def _dense(
    steps: int, counts: Iterable[int], centres: Iterable[float]
) -> Iterator[tuple[str, Computed]]:
    for centre, power, count in product(centres, _POWERS, counts):
        computed = around(steps, count, round(centre * steps), power)
        if computed is not None:
            yield f"{count} steps around {round(centre * steps)}, power {power:g}", computed
