"""Factories for --model package.module:factory: what works, and each way in which it does not."""

import torch
from torch import Tensor, nn

from tests.compiler import foreign

not_a_factory = 3


class Convolution(nn.Module):
    """A denoiser without any attention."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 16, 3, padding=1)
        self.time = nn.Linear(16, 16)
        self.last = nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        emb = self.time(foreign.sinusoid(sigma, 16))
        return self.last(torch.relu(self.first(x) + emb[:, :, None, None]))

    def turbo4d_inputs(self):
        return (torch.zeros(6, 4, 8, 8), torch.ones(6)), {}


def convolution() -> nn.Module:
    return Convolution()


def multi_view() -> nn.Module:
    module, inputs = foreign.build("multi_view")
    object.__setattr__(module, "turbo4d_inputs", lambda: ((), inputs))
    return module


def ambiguous() -> nn.Module:
    module = multi_view()
    del module.turbo4d_geometry
    return module


def mistaken() -> nn.Module:
    module = multi_view()
    object.__setattr__(module, "turbo4d_inputs", lambda: torch.zeros(1))
    return module


def without_inputs() -> nn.Module:
    return nn.Linear(2, 2)


def tensor() -> Tensor:
    return torch.zeros(2)
