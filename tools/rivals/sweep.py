"""Every rival's knob, swept."""

from __future__ import annotations

from collections.abc import Sequence

from turbo4d.runtime.plan import RegionInfo
from turbo4d.tools.rivals import (
    deepcache,
    fewer_steps,
    first_block_cache,
    fora,
    interval,
    magcache,
    pab,
    taylorseer,
    teacache,
)
from turbo4d.tools.rivals.setting import Setting, distinct
from turbo4d.tools.rivals.signals import Signals


def sweep(steps: int, regions: Sequence[RegionInfo], scenes: Sequence[Signals]) -> list[Setting]:
    """All settings of all rivals, of each those that differ on the calibration scenes.

    Args:
        steps: of the schedule.
        regions: of the network.
        scenes: what the calibration scenes' uncached runs showed.
    """
    systems = [
        fewer_steps.settings(steps),
        interval.settings(steps, regions),
        deepcache.settings(steps, regions),
        pab.settings(steps, regions),
        fora.settings(steps, regions),
        teacache.settings(regions, scenes),
        first_block_cache.settings(regions),
        magcache.settings(steps, regions, scenes),
        taylorseer.settings(steps, regions),
    ]
    return [setting for each in systems for setting in distinct(each, scenes)]
