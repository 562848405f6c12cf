"""How a program of the fused attention is cut: by a table where it was timed, by a rule elsewhere.

The table is empty: no kernel of ours ran on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

MOST_TOKENS = 32
"""Of a sequence; twice as many are half of a tile's rows, and torch's own attention is near."""
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
"""That the kernels compute in; their sums are in float32, so none wider."""
_WHOLE = 256  # channels of 64 rows whose sums fit the registers of 256 threads


@dataclass(frozen=True)
class Tuning:
    """How the work is cut.

    Args:
        rows: tokens of a program; whole groups of them.
        step: channels at a time.
        columns: channels that a program of the second kernel writes.
        warps: of a program.
        stages: blocks that are on their way at once.
        whole: whether one kernel does all.
        timed: whether it was found by timing, or is the rule's.
    """

    rows: int
    step: int
    columns: int = 64
    warps: int = 4
    stages: int = 2
    whole: bool = True
    timed: bool = False


TUNED: Mapping[tuple[int, int, int, torch.dtype], Tuning] = {}
"""By channels, heads, tokens (V tells a camera's attention, F a motion's) and dtype."""


def tuning_of(channels: int, heads: int, tokens: int, dtype: torch.dtype) -> Tuning:
    """The table's entry, or what the rule says; its `timed` tells which.

    Args:
        channels: C.
        heads: N.
        tokens: of a group, at most `MOST_TOKENS`.
        dtype: of the values.
    """
    found = TUNED.get((channels, heads, tokens, dtype))
    return found or _untimed(channels, dtype)


def _untimed(channels: int, dtype: torch.dtype) -> Tuning:
    """What the compiler, asked for sm_90, fits into registers without spilling one."""
    step = min(32 if dtype.itemsize == 4 or channels > _WHOLE else 64, _at_least(channels))
    if dtype.itemsize == 4:
        return Tuning(32, step, warps=8, whole=channels <= _WHOLE // 2)
    if channels > _WHOLE:
        return Tuning(128, step, warps=8, whole=False)
    return Tuning(64, step, warps=8 if channels > _WHOLE // 2 else 4)


def _at_least(channels: int) -> int:
    """The power of two that holds them, at least a product's 16."""
    return max(16, 1 << (channels - 1).bit_length())


def untimed_rows(dtype: torch.dtype) -> Tuning:
    """How a feed-forward's products are cut; by the same rule, and not timed either.

    Args:
        dtype: of the values.
    """
    if dtype.itemsize == 4:
        return Tuning(32, 32, warps=8)
    return Tuning(128, 32, warps=8)
