"""How close a sample is to the reference, where the user has no measure of their own."""

from __future__ import annotations

import math

from torch import Tensor

CEILING_DB = 200.0  # of samples that are equal in every bit, whose PSNR is infinite


def psnr_of_range(reference: Tensor, sample: Tensor, example: object = None) -> float:
    """PSNR in dB, by a peak of 1 where the reference lies in [0, 1], else by its range.

    Args:
        reference: what the uncached network gave.
        sample: of the same shape.
        example: not looked at.

    Returns:
        At most CEILING_DB; minus infinity where the sample holds NaN or infinity.
    """
    low, high = float(reference.min()), float(reference.max())
    peak = 1.0 if low >= 0.0 and high <= 1.0 else high - low
    error = float((sample.double() - reference.double()).square().mean())
    if not math.isfinite(error):
        return -math.inf
    if error == 0.0 or peak == 0.0:
        return CEILING_DB if error == 0.0 else -math.inf
    return min(CEILING_DB, 10 * math.log10(peak**2 / error))


def amplitude(decibels: float) -> float:
    """An error as an amplitude, of a fidelity in dB."""
    return 10 ** (-decibels / 20)
