"""The learned scalar that mixes a block's input with its output."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Blend(nn.Module):
    """a * x + (1 - a) * y with a = sigmoid(mix_factor), one scalar for the whole tensor.

    The public strategy "learned_with_images" would set a = 1 for single images, but the SV4D
    networks multiply its indicator by zero, so a never depends on the input.

    Args:
        factor: initial value of the parameter, before the sigmoid.
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.mix_factor = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the parameter to its initial value."""
        nn.init.constant_(self.mix_factor, self.factor)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Mix `x` and `y` of one shape."""
        alpha = torch.sigmoid(self.mix_factor).to(x.dtype)
        return alpha * x + (1 - alpha) * y
