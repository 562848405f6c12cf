"""tolerances: how far an engine may be from the eager reference that computes in the same dtype.

The measure is |engine - reference| / |reference|, 2-norms over a whole output or slot. Both round,
each in its own order, so neither is the truth and both lie around it:

    one rounding       is off by up to u, the unit roundoff; by 0.41 u in the root mean square (an
                       even spread within the last place, u / sqrt(3), over a significand that is
                       even in its logarithm)
    a stream of n      adds n of them at random, each relative to the stream as it is there:
                       0.41 u sqrt(n). n counts the values on the main stream, not all calls: what
                       a block rounds inside weighs as the block's share of the stream
    a sum of k terms   where terms are added in the dtype itself (float32, float64), 16 at a time,
                       rounds k / 16 times more: sqrt(k / 16). The half types add up in float32
                       (`compiler/lower/onnx_rules`), whose roundings are nothing beside theirs
    two sides          differ by sqrt(2) times what each is off
    a difference       of exit and entry, as a slot may hold, has the error of what it was taken
                       from, however little is left: its error is measured against the larger of
                       the two (`Recorded.sizes`), not against itself
    GAIN               what the network makes of an error on its way: norms and residual sums keep
                       it, gates and the softmax may raise it

n is 256, the stream of the full-size SV4D (16 S-C-M modules of 12 sums and projections, 22 residual
blocks of 2, the ways in and out); k is 4096, its longest common product. Measured against float64
on the trained nano, one step: torch is off by 2.2 to 3.9 u in float16 and 2.3 to 3.9 u in bfloat16,
ONNX Runtime by 1.1 to 2.9 u in float16, and both by 5 to 15 u in float32, over the output and ten
slots; the bounds below are 19 u and 297 u.

An engine that multiplies float32 in TF32 is as exact as float16, and has its bound to meet.
"""

from __future__ import annotations

import math

import torch
from turbo4d.compiler.errors import LowerError
from turbo4d.runtime.plan import Plan

STREAM = 256
TERMS = 4096
LANES = 16
GAIN = 2.0
_ROOT_MEAN_SQUARE = 0.41
_HALVES = (torch.float16, torch.bfloat16)


def unit_roundoff(dtype: torch.dtype) -> float:
    """The largest relative error of rounding to the nearest: half of the last place.

    Raises:
        LowerError: the dtype has no last place.
    """
    if not dtype.is_floating_point:
        raise LowerError(f"{dtype} does not round; compare its values for equality.")
    return torch.finfo(dtype).eps / 2


def relative_error(dtype: torch.dtype, *, angle: float = 0.0) -> float:
    """The bound for one output or slot.

    Args:
        dtype: that both compute in.
        angle: the largest, in radians, of which a float32 sine is taken, where it is known to be in
            the hundreds: its own last place is off by that much before the sine, on either side.

    Raises:
        LowerError: the dtype does not round.
    """
    summed = 1.0 if dtype in _HALVES else math.sqrt(TERMS / LANES)
    one_side = _ROOT_MEAN_SQUARE * unit_roundoff(dtype) * math.sqrt(STREAM) * summed
    turned = angle * unit_roundoff(torch.float32)
    return GAIN * math.sqrt(2) * (one_side + turned)


def run_tolerance(dtype: torch.dtype, plan: Plan) -> float:
    """The relative error that a step of a run may have: its engine's own, and its slots'.

    What a slot holds is an engine's error off; extrapolation weighs what it holds, by at most
    2^(order + 1) - 1 in all where levels are evenly spaced, or by the plan's own weights.

    Args:
        dtype: that the engines compute in.
        plan: whose weights are taken.
    """
    rows = [row for stream in plan.streams for row in plan.rows(stream)]
    actions = [action for row in rows if row is not None for action in row.values()]
    gains = [sum(map(abs, a.mix)) if a.mix else 2.0 ** (a.order + 1) - 1 for a in actions]
    return relative_error(dtype) * (1.0 + max(gains, default=0.0))
