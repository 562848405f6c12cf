"""TeaCache: the step reused while the changes of the modulated input, rescaled, stay small.

Source: TeaCache (Liu et al. 2024). The rescaling is a polynomial of order 4, fitted on calibration
scenes, from the modulated input's relative change to that of what the core gives. Theirs computes
the last step; without that it is swept too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from turbo4d.runtime.plan import RegionInfo
from turbo4d.tools.rivals.accumulated import thresholds, until_spent
from turbo4d.tools.rivals.setting import Rows, Setting, core_of, reusing
from turbo4d.tools.rivals.signals import Signals

SYSTEM = "TeaCache"
ORDER = 4
_THRESHOLDS = thresholds(0.03, 6.0, 28)


def coefficients(scenes: Sequence[Signals], order: int = ORDER) -> tuple[float, ...]:
    """Of the polynomial in the modulated input's change, the constant first; least squares.

    Args:
        scenes: for calibration.
        order: of the polynomial.
    """
    inputs = torch.tensor([x for scene in scenes for x in scene.modulated], dtype=torch.float64)
    outputs = torch.tensor([y for scene in scenes for y in scene.output], dtype=torch.float64)
    powers = inputs[:, None] ** torch.arange(order + 1)
    return tuple(torch.linalg.lstsq(powers, outputs[:, None]).solution[:, 0].tolist())


def rescaled(changes: Sequence[float], polynomial: Sequence[float]) -> list[float]:
    """The polynomial's value at each change; a change is never taken to undo another."""
    return [
        max(0.0, sum(weight * change**power for power, weight in enumerate(polynomial)))
        for change in changes
    ]


def settings(regions: Sequence[RegionInfo], scenes: Sequence[Signals]) -> list[Setting]:
    """Each threshold, with the last step computed and without."""
    polynomial, core = coefficients(scenes), core_of(regions)

    def rows(threshold: float, last: bool, scene: Signals) -> Rows:
        changes = rescaled(scene.modulated, polynomial)
        return reusing(until_spent(changes, threshold, 1, last), [core])

    return [
        Setting(SYSTEM, f"threshold {one:g}{said}", rows=partial(rows, one, last))
        for last, said in ((False, ""), (True, ", last step computed"))
        for one in _THRESHOLDS
    ]
