"""tomesd: tokens that are alike merged before each self-attention, and parted after it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from .cases import Case
from .prepared import Prepared, compiled

INSTALL = "pip install tomesd"


def prepare(case: Case, *, compile: bool, ratio: float, max_downsample: int = 1) -> Prepared:
    """The UNet patched by tomesd.

    Args:
        case: of an image UNet; tomesd reads the latent's sides from a batch of images.
        compile: whether torch.compile comes after.
        ratio: of the tokens that are merged.
        max_downsample: deepest level that is patched, as its factor.
    """
    tomesd: Any = import_module("tomesd")
    torch.manual_seed(0)  # it draws the tokens that others are merged into
    network: Any = tomesd.apply_patch(case.network, ratio=ratio, max_downsample=max_downsample)
    return Prepared(compiled(network) if compile else network)
