"""Muon for the nano UNet's matrices: momentum whose update is orthogonalised, stacked by shape."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _orthogonalise(update: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz on a stack of matrices [N, R, C] (Jordan 2024); singular values end near 1."""
    tall = update.shape[-2] > update.shape[-1]
    x = (update.mT if tall else update).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Muon:
    """Orthogonalised momentum for parameters of two or more axes.

    Args:
        parameters: all that it trains; convolution kernels count as matrices [out, rest].
        momentum: of the Nesterov average.
        weight_decay: decoupled, per unit of learning rate.
    """

    def __init__(
        self, parameters: list[nn.Parameter], momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        self.groups: dict[tuple[int, int], list[nn.Parameter]] = {}
        for parameter in parameters:
            shape = (parameter.shape[0], parameter[0].numel())
            self.groups.setdefault(shape, []).append(parameter)
        self.buffers = {
            shape: torch.zeros(len(group), *shape, device=group[0].device)
            for shape, group in self.groups.items()
        }
        self.momentum, self.weight_decay = momentum, weight_decay

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update; an entry changes by about 0.2 * lr (root mean square)."""
        for shape, group in self.groups.items():
            gradients = (torch.zeros_like(p) if p.grad is None else p.grad for p in group)
            gradient = torch.stack([g.reshape(shape) for g in gradients])
            buffer = self.buffers[shape]
            buffer.lerp_(gradient, 1.0 - self.momentum)
            update = _orthogonalise(gradient.lerp(buffer, self.momentum))
            update = update * (0.2 * max(shape) ** 0.5)
            for parameter, delta in zip(group, update, strict=True):
                parameter.mul_(1.0 - lr * self.weight_decay)
                parameter.add_(delta.view_as(parameter), alpha=-lr)

    def state_dict(self) -> dict[str, Tensor]:
        """Momentum buffers by shape."""
        return {f"{rows}x{columns}": buffer for (rows, columns), buffer in self.buffers.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state_dict` gave."""
        for (rows, columns), buffer in self.buffers.items():
            buffer.copy_(state[f"{rows}x{columns}"])
