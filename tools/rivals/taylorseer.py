"""TaylorSeer: values forecast from the last computed ones, at a uniform interval after a warm-up.

Source: TaylorSeer (Liu et al. 2025). Theirs is a Taylor series in the step index from differences;
`reuse(order)` is the polynomial through the same values, in ln(sigma), where the values move more
evenly. Of every chain, as theirs is of every layer, or of the core alone ("lite" in diffusers).
"""

from __future__ import annotations

from collections.abc import Sequence

from turbo4d.runtime.action import Action
from turbo4d.runtime.plan import RegionInfo
from turbo4d.tools.rivals.schedule import Computed, every
from turbo4d.tools.rivals.setting import Rows, Setting, chains_of, core_of, static

SYSTEM = "TaylorSeer"
_ORDERS = (1, 2)
_CORE = tuple((interval, warmup) for warmup in (1, 3) for interval in (2, 3, 4, 5, 6))
_CHAINS = tuple((interval, 3) for interval in (2, 3))


def forecast(computed: Computed, regions: Sequence[str], order: int) -> Rows:
    """Rows that forecast what is not computed, by the order wanted once enough is computed."""
    rows: list[dict[str, Action]] = []
    for step, cell in enumerate(computed):
        known = sum(computed[:step])
        action = Action("reuse", order=min(order, known - 1)) if not cell else None
        rows.append(dict.fromkeys(regions, action) if action else {})
    return tuple(rows)


def settings(steps: int, regions: Sequence[RegionInfo]) -> list[Setting]:
    """Each interval, warm-up and order, of the core and of the chains."""
    units = (("core", (core_of(regions),), _CORE), ("chains", chains_of(regions), _CHAINS))
    return [
        static(
            SYSTEM,
            f"{unit}, every {interval} steps, order {order}, warm-up {warmup}",
            forecast(every(steps, interval, warmup), names, order),
        )
        for unit, names, swept in units
        for order in _ORDERS
        for interval, warmup in swept
    ]
