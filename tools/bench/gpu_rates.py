"""What a device can do at most: products in a dtype, and copies; each measured, none looked up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from turbo4d.tools.timing import timed

_ROUNDS = 10
# Side of the matrices and bytes of the copy: large enough to keep the device busy.
_SIZES = {"cuda": (8192, 2**30), "cpu": (512, 2**25)}


@dataclass(frozen=True)
class Rates:
    """Ceilings of a device.

    Args:
        matmul_flops_per_s: of square products, two operations a multiply-add.
        copy_bytes_per_s: bytes read and written.
    """

    matmul_flops_per_s: float
    copy_bytes_per_s: float


def rates_of(dtype: torch.dtype, device: torch.device) -> Rates:
    """The best of some rounds of each.

    Args:
        dtype: of the products' operands; they are random, since zeros draw less power.
        device: on which they lie.
    """
    side, size = _SIZES[device.type]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.randint(0, 255, (size,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    return Rates(
        matmul_flops_per_s=2 * side**3 / _best(lambda: left @ right, device),
        copy_bytes_per_s=2 * size / _best(lambda: target.copy_(source), device),
    )


def _best(job: Callable[[], torch.Tensor], device: torch.device) -> float:
    with torch.no_grad():
        timed(job, device)
        return min(timed(job, device)[1] for _ in range(_ROUNDS))
