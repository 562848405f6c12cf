"""The smallest denoiser with repeated chains: two of one shape between two convolutions."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.lower.eager import EagerPrologue

from tests.compiler.foreign import Attention, sinusoid
from tests.support import flat_args

VIEWS, FRAMES, CHANNELS, SIDE = 2, 3, 8, 4


class TwoAxes(nn.Module):
    """Attention over pixels, then over views, around one residual."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = Attention(CHANNELS, heads=1)
        self.camera = Attention(CHANNELS, heads=1)
        self.out = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.spatial(tokens)
        groups = tokens.view(-1, VIEWS, SIDE * SIDE, CHANNELS).transpose(1, 2)
        groups = groups.reshape(-1, VIEWS, CHANNELS)
        groups = groups + self.camera(groups)
        tokens = groups.view(-1, SIDE * SIDE, VIEWS, CHANNELS).transpose(1, 2)
        tokens = self.out(tokens.reshape(-1, SIDE * SIDE, CHANNELS))
        return x + tokens.transpose(1, 2).reshape(x.shape)


class TwoChains(nn.Module):
    """Called with a sample [F*V, 4, 4, 4], its level and an embedding [F*V, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.turbo4d_geometry = {"views": VIEWS, "frames": FRAMES}
        self.first = nn.Conv2d(4, CHANNELS, 3, padding=1)
        self.level = nn.Linear(16, CHANNELS)
        self.label = nn.Linear(8, CHANNELS)
        self.chains = nn.ModuleList(TwoAxes() for _ in range(2))
        self.last = nn.Conv2d(CHANNELS, 4, 3, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor, label: Tensor) -> Tensor:
        emb = self.level(sinusoid(timestep, 16)) + self.label(label).tanh()
        hidden = self.first(sample) + emb[:, :, None, None]
        for chain in self.chains:
            hidden = chain(hidden)
        return self.last(hidden)


@cache
def two_chains() -> tuple[TwoChains, dict[str, Tensor], Analysis, list[Tensor], tuple[Tensor, ...]]:
    """The network, a call of it, what is known of it, its flat arguments, its prologue's values."""
    torch.manual_seed(0)
    model = TwoChains().eval().requires_grad_(False)
    call = {
        "sample": torch.randn(VIEWS * FRAMES, 4, SIDE, SIDE),
        "timestep": torch.full((VIEWS * FRAMES,), 0.3),
        "label": torch.randn(VIEWS * FRAMES, 8),
    }
    analysis = analyse(capture_export(model, (), call))
    args = flat_args(analysis.capture, (), call)
    return model, call, analysis, args, EagerPrologue(exact_form(analysis).prologue)(args)
