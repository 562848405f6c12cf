"""MagCache: the step reused while the magnitude, as calibrated, is known well enough.

Source: MagCache (Ma et al. 2025): the calibrated ratios of successive magnitudes are multiplied
since the last computed step; their distances from 1 are summed, and the step is computed where the
sum exceeds a threshold or too many steps were reused. The first steps (retention) are computed.
Theirs is the ratio of the residual's magnitude; the core keeps its exit value, so it is of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from turbo4d.runtime.plan import RegionInfo
from turbo4d.tools.rivals.accumulated import thresholds
from turbo4d.tools.rivals.schedule import Computed
from turbo4d.tools.rivals.setting import Setting, core_of, reusing, static
from turbo4d.tools.rivals.signals import Signals

SYSTEM = "MagCache"
_THRESHOLDS = thresholds(0.005, 2.0, 18)
# Steps that may be reused in a row, and the share of the steps that is retained.
_BOUNDS = ((12, 0.0), (4, 0.0), (2, 0.0), (12, 0.2), (4, 0.2))


def ratios(scenes: Sequence[Signals]) -> tuple[float, ...]:
    """The mean over calibration scenes of each step's magnitude relative to the step before."""
    return tuple(mean(each) for each in zip(*(scene.growth for scene in scenes), strict=True))


def computed_by(growth: Sequence[float], threshold: float, most: int, retained: int) -> Computed:
    """The steps that are computed.

    Args:
        growth: the ratio of each step but the first.
        threshold: of the summed error.
        most: steps that may be reused in a row.
        retained: first steps that are computed.
    """
    computed = [True]
    ratio, error, skipped = 1.0, 0.0, 0
    for step, each in enumerate(growth, start=1):
        ratio, skipped = ratio * each, skipped + 1
        error += abs(1.0 - ratio)
        computed.append(step < retained or error >= threshold or skipped > most)
        if computed[-1]:
            ratio, error, skipped = 1.0, 0.0, 0
    return tuple(computed)


def settings(steps: int, regions: Sequence[RegionInfo], scenes: Sequence[Signals]) -> list[Setting]:
    """Each threshold with a loose bound on the steps in a row, and every other with the rest."""
    growth, core = ratios(scenes), core_of(regions)
    return [
        static(
            SYSTEM,
            f"threshold {one:g}, at most {most} in a row, retention {share:g}",
            reusing(computed_by(growth, one, most, round(share * steps)), [core]),
        )
        for most, share in _BOUNDS
        for one in (_THRESHOLDS if most > 4 and not share else _THRESHOLDS[::2])
    ]
