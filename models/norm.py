"""Group norm over 32 groups that never computes below float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import GROUPS

_NARROW = (torch.bfloat16, torch.float16)


class GroupNorm32(nn.GroupNorm):
    """Group norm with 32 groups; bfloat16 and float16 inputs are normalised in float32.

    Args:
        channels: C, a multiple of 32.
        eps: 1e-5 in the residual blocks, 1e-6 at the door of an S-C-M module.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(GROUPS, channels, eps=eps)

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, ...] to the same shape and dtype."""
        if input.dtype not in _NARROW:
            return super().forward(input)
        # The affine is cast too: the CPU kernel refuses a float32 input with bfloat16 weights.
        wide = F.group_norm(
            input.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps
        )
        return wide.to(input.dtype)
