"""First-Block-Cache: the step reused while the first block's residual is near the last computed.

Source: ParaAttention and cache-dit (F1B0). Theirs computes the first block at every step and adds
what the others gave; here the whole core is reused, so that the look is free, or the level below
the outermost, so that the first block and its neighbours are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from turbo4d.runtime.plan import RegionInfo
from turbo4d.tools.rivals.accumulated import thresholds
from turbo4d.tools.rivals.schedule import Computed
from turbo4d.tools.rivals.setting import Rows, Setting, core_of, levels_of, reusing
from turbo4d.tools.rivals.signals import Signals

SYSTEM = "First-Block-Cache"
_THRESHOLDS = thresholds(0.01, 2.0, 28)
# The level saves least of a step, and a warm-up spends steps where little changes.
_LEVEL_THRESHOLDS, _WARM_THRESHOLDS = _THRESHOLDS[::4], _THRESHOLDS[::3]
_WARMUP = 4


def computed_by(scene: Signals, threshold: float, warmup: int) -> Computed:
    """The steps whose first residual differs by the threshold or more from the last computed."""
    computed, last = [True], 0
    for step in range(1, len(scene.first_block)):
        far = scene.first_block[step][last] >= threshold
        computed.append(far or step < warmup)
        last = step if computed[-1] else last
    return tuple(computed)


def settings(regions: Sequence[RegionInfo]) -> list[Setting]:
    """Each threshold; some with a warm-up, or of the level."""

    def rows(region: str, threshold: float, warmup: int, scene: Signals) -> Rows:
        return reusing(computed_by(scene, threshold, warmup), [region])

    swept = [(core_of(regions), one, 1) for one in _THRESHOLDS]
    swept += [(core_of(regions), one, _WARMUP) for one in _WARM_THRESHOLDS]
    swept += [(levels_of(regions)[0], one, 1) for one in _LEVEL_THRESHOLDS]
    return [
        Setting(
            SYSTEM,
            f"{region}, threshold {threshold:g}, warm-up {warmup}",
            rows=partial(rows, region, threshold, warmup),
        )
        for region, threshold, warmup in swept
    ]
