"""A network as a system has prepared it for sampling."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from .sampling import Before

Settings = Any  # what a package's `prepare` takes as keyword arguments


@dataclass(frozen=True)
class Prepared:
    """What a sampling loop needs of a system.

    Args:
        denoiser: called as the network is.
        before: told of each call of it.
        reset: called before each sample; part of its time, as it is of a pipeline's.
    """

    denoiser: Callable[..., Any]
    before: Before = lambda step, timestep, stream: nullcontext()
    reset: Callable[[], object] = lambda: None


def compiled(network: Callable[..., Any]) -> Callable[..., Any]:
    """The network under torch's own compiler, as its users call it."""
    made: Any = torch.compile(network)
    return made
