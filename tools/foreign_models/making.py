"""A class of `diffusers` made with random weights, its call beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from turbo4d.models.random_weights import fill_random
from turbo4d.tools.failures import CallError


def made(name: str, config: Mapping[str, Any], inputs: dict[str, Any]) -> nn.Module:
    """A network in eval mode that holds its call as `turbo4d_inputs`.

    Args:
        name: of the class.
        config: keyword arguments of the class.
        inputs: keyword arguments of one call.

    Raises:
        CallError: the package is not installed.
    """
    try:
        import diffusers
    except ImportError as error:
        raise CallError(
            f"{name} comes from the package 'diffusers', which is not installed; "
            "run: pip install diffusers"
        ) from error
    module: nn.Module = getattr(diffusers, name)(**config)
    fill_random(module)
    call = {**inputs, "return_dict": False}
    module.turbo4d_inputs = lambda: ((), call)  # type: ignore[assignment]
    return module.eval().requires_grad_(False)


def randn(*shape: int) -> Tensor:
    """Noise that is the same at every call of the same size."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))
