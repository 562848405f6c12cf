"""What a slot would hold by now: its last values extrapolated to the present noise level.

The variable is u = ln(sigma), in which a network's features move evenly; the step index is not, for
a schedule's steps are of unequal length. A constant factor of u changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor


@lru_cache(maxsize=4096)
def weights(places: tuple[float, ...], u: float) -> tuple[float, ...]:
    """Lagrange's weights: exact for every polynomial in u of a degree below their number.

    Args:
        places: where the values were computed, all different.
        u: where one is wanted.

    Returns:
        One weight per place; their sum is 1.
    """
    found: list[float] = []
    for j, place in enumerate(places):
        weight = 1.0
        for other in (*places[:j], *places[j + 1 :]):
            weight *= (u - other) / (place - other)
        found.append(weight)
    return tuple(found)


def weighted(history: Sequence[Tensor], mix: Sequence[float]) -> Tensor:
    """The weighted sum of the values, whatever the weights add up to; computed in float32 at least.

    Args:
        history: at least one value; all of one shape and dtype.
        mix: one weight per value.
    """
    first = history[0]
    wide = torch.promote_types(first.dtype, torch.float32)
    found = first.to(wide) * mix[0]
    for value, weight in zip(history[1:], mix[1:], strict=True):
        found.add_(value, alpha=weight)
    return found.to(first.dtype)


def predict(history: Sequence[Tensor], mix: Sequence[float]) -> Tensor:
    """The weighted sum of the values, in one kernel for each but the first.

    One value alone is given back as it is, uncopied. A kernel computes in float32 where the values
    are half precision and rounds once; that is less than what storing them has rounded, which the
    weights, of both signs, have already enlarged.

    Args:
        history: at least one value, the oldest first; all of one shape and dtype.
        mix: one weight per value, as `weights` gives them for a level below all of theirs; they
            add up to 1.
    """
    # Each lerp gives the mean of the values so far under their weights. Beyond the last place no
    # partial sum of the weights is 0: it is the value of the polynomial that is 1 at the places so
    # far and 0 at the others, and all its turning points lie between them.
    found = history[0]
    sums = [*accumulate(mix[:-1]), 1.0][1:]
    for value, weight, so_far in zip(history[1:], mix[1:], sums, strict=True):
        found = torch.lerp(found, value, weight / so_far)
    return found
