"""Weights drawn from the parameters' names: the same on every machine, and no layer is dead."""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor, nn


def fill_random(model: nn.Module) -> None:
    """Give every parameter a value that depends on its name and shape alone.

    A new network's residual branches end in zeros, so its output says nothing; after this one,
    every part shows. The rule is that of the reference numbers in tests/data/golden.

    Args:
        model: any module not on the "meta" device; keeps its dtype and device.
    """
    with torch.no_grad():
        for key, value in model.state_dict().items():
            value.copy_(_draw(key, value.shape))


def _draw(key: str, shape: torch.Size) -> Tensor:
    # A CPU generator in float32: the stream of another device or dtype differs.
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    normal = torch.randn(shape, generator=generator, dtype=torch.float32)
    if key.endswith("mix_factor"):
        return normal
    if len(shape) == 1 and key.endswith(".weight"):
        return 1 + 0.1 * normal
    if key.endswith("bias"):
        return 0.05 * normal
    return normal / math.sqrt(math.prod(shape[1:]))
