"""Denoisers that the tests of this folder share; each is captured once a run."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.models.config import SV4DConfig
from turbo4d.models.example_inputs import example_inputs
from turbo4d.models.random_weights import fill_random
from turbo4d.models.unet import SV4DUNet

from tests.support import flat_args

Call = dict[str, Any]


def config_of(name: str) -> SV4DConfig:
    """A named configuration; "mini" is the smallest UNet with every kind of region but a level."""
    if name != "mini":
        return SV4DConfig.named(name)
    tiny = SV4DConfig.named("tiny")
    return replace(
        tiny, channel_mult=(1,), attention_resolutions=(1,), frames=3, views=2, latent_size=4
    )


def sv4d(name: str, dtype: torch.dtype = torch.float32, branches: int = 2) -> tuple[SV4DUNet, Call]:
    """A network with random weights, and one call of it."""
    config = config_of(name)
    model = SV4DUNet(config).eval()
    fill_random(model)
    inputs: Any = example_inputs(config, branches=branches, dtype=dtype)
    return model.to(dtype), dict(inputs)


@cache
def captured(
    name: str, dtype: torch.dtype = torch.float32
) -> tuple[SV4DUNet, Call, Analysis, tuple[Tensor, ...]]:
    """A network, one call of it, what the compiler knows of it, and the flat arguments."""
    model, call = sv4d(name, dtype)
    analysis = analyse(capture_export(model, (), call), gates=False)
    return model, call, analysis, tuple(flat_args(analysis.capture, (), call))
