"""FORA: every block reused at a uniform interval, what lies between the blocks computed.

Source: FORA (Selvaraju et al. 2024). A block's slot holds its residual, feed-forward included. The
chains, which are the blocks and what joins them, save more: they are swept too, in its favour.
"""

from __future__ import annotations

from collections.abc import Sequence

from turbo4d.runtime.plan import RegionInfo
from turbo4d.tools.rivals.schedule import every
from turbo4d.tools.rivals.setting import Setting, blocks_of, chains_of, reusing, static

SYSTEM = "FORA"
_INTERVALS = {"chains": (2, 3, 4, 5, 7), "blocks": (2, 3)}


def settings(steps: int, regions: Sequence[RegionInfo]) -> list[Setting]:
    """Chains at each interval, blocks at some: they give nearly the same and take longer."""
    return [
        static(SYSTEM, f"{unit}, every {interval} steps", reusing(every(steps, interval), names))
        for unit, names in (("blocks", blocks_of(regions)), ("chains", chains_of(regions)))
        for interval in _INTERVALS[unit]
    ]
