"""PAB: each kind of attention block reused over a range of its own, inside a window of steps.

Source: Pyramid Attention Broadcast (Zhao et al. 2024): spatial attention changes most and is
broadcast over the shortest range. Here camera takes the place of their temporal, motion that of
their cross attention, and a block's feed-forward is reused with it, in its favour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from turbo4d.runtime.action import REUSE, Action
from turbo4d.runtime.plan import RegionInfo
from turbo4d.tools.rivals.setting import Rows, Setting, blocks_of, static

SYSTEM = "PAB"
_RANGES = ((2, 2, 2), (2, 3, 5), (3, 4, 6), (6, 8, 10))
# Shares of the run: theirs (timesteps 930 to 450 of 1000), all but the ends, all.
_WINDOWS = ((0.07, 0.55), (0.05, 0.85), (0.0, 1.0))


def settings(steps: int, regions: Sequence[RegionInfo]) -> list[Setting]:
    """Each triple of ranges in each window."""
    kinds = {kind: blocks_of(regions, kind) for kind in ("spatial", "camera", "motion")}
    found: list[Setting] = []
    for low, high in _WINDOWS:
        window = range(int(low * steps), round(high * steps))
        for ranges in _RANGES:
            each = dict(zip(kinds, ranges, strict=True))
            knob = f"ranges {'/'.join(map(str, ranges))}, steps {window.start} to {window.stop - 1}"
            found.append(static(SYSTEM, knob, broadcast(steps, kinds, each, window)))
    return found


def broadcast(
    steps: int,
    kinds: Mapping[str, Sequence[str]],
    ranges: Mapping[str, int],
    window: range,
) -> Rows:
    """The rows: in the window a kind is computed once in its range, outside of it at every step.

    Args:
        steps: of the run.
        kinds: kind -> its blocks.
        ranges: kind -> steps that one computed value serves, its own among them.
        window: of steps.
    """
    last = dict.fromkeys(kinds, 0)
    rows: list[dict[str, Action]] = []
    for step in range(steps):
        row: dict[str, Action] = {}
        for kind, blocks in kinds.items():
            if step and step in window and step - last[kind] < ranges[kind]:
                row |= dict.fromkeys(blocks, REUSE)
            else:
                last[kind] = step
        rows.append(row)
    return tuple(rows)
