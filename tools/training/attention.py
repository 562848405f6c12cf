"""Attention for training on a CPU: the same function of the same parameters in a cheaper form.

Swapped in as the class of the model's `Attention` modules while training; keys and shapes stay.
A context of one key makes the softmax 1, so the output is `to_out(to_v(context))` for every query.
Sequences of up to 8 tokens (views, frames) are attended by broadcasting, longer ones by two matrix
products: the backward pass of the fused kernel is slow at these sizes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from turbo4d.models.attention import Attention

SHORT = 8


class TrainingAttention(Attention):
    """Equal to `Attention` up to rounding, where the context has one key or there is none."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """[G, L, C] to the same; with a context [G, 1, E] to [G, 1, C], which broadcasts."""
        if context is not None:
            return self.to_out(self.to_v(context))
        groups, length, channels = x.shape
        weight = torch.cat([self.to_q.weight, self.to_k.weight, self.to_v.weight])
        q, k, v = F.linear(x, weight).view(groups, length, 3, -1, self.head_channels).unbind(2)
        scale = self.head_channels**-0.5
        if length <= SHORT:
            scores = (q[:, :, None] * k[:, None]).sum(-1, dtype=torch.float32) * scale
            mixed = (scores.softmax(2).to(v.dtype)[..., None] * v[:, None]).sum(2)
            return self.to_out(mixed.reshape(groups, length, channels))
        q, k, v = (part.transpose(1, 2) for part in (q * scale, k, v))
        mixed = (q @ k.mT).softmax(-1).to(v.dtype) @ v
        return self.to_out(mixed.transpose(1, 2).reshape(x.shape))


def use_training_attention(model: nn.Module, on: bool = True) -> None:
    """Swaps the class of every attention in `model`, or back."""
    for module in model.modules():
        if isinstance(module, Attention):
            module.__class__ = TrainingAttention if on else Attention
