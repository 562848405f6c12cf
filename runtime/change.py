"""How much a slot changed since it was last computed, read without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor

# More entries than these are sampled at equal distances: the norm of a random tenth of a million
# entries is within half a percent of the whole's.
_ENTRIES = 1 << 16


class Reading:
    """One figure computed on a device, on its way to the host.

    Args:
        figure: a tensor of one entry.
    """

    def __init__(self, figure: Tensor) -> None:
        self._ready: torch.cuda.Event | None = None
        if figure.is_cuda:
            self._held = torch.empty((), dtype=figure.dtype, pin_memory=True)
            self._held.copy_(figure, non_blocking=True)
            self._ready = torch.cuda.Event()
            self._ready.record(torch.cuda.current_stream(figure.device))
        else:
            self._held = figure

    def value(self) -> float:
        """The figure; waits for its own copy alone, not for what was queued after it."""
        if self._ready is not None:
            self._ready.synchronize()
            self._ready = None
        return float(self._held)


def relative_change(now: Tensor, before: Tensor) -> Reading:
    """The distance of two values of one slot, relative to the newer one (L2).

    Args:
        now: what was just computed.
        before: what it replaces, of the same shape.

    Returns:
        NaN where either holds one, infinity where the newer value is zero and the older is not.
    """
    new, old = _sampled(now), _sampled(before)
    return Reading(((new - old).square().sum() / new.square().sum()).sqrt())


def _sampled(value: Tensor) -> Tensor:
    stride = max(1, value.numel() // _ENTRIES)
    # A stride that divides an axis would see one channel only; an odd one walks through them all.
    flat = value.detach().reshape(-1)[:: stride | 1]
    return flat.to(torch.float32) if flat.dtype.itemsize < 4 else flat
