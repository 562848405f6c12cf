"""The uncached samples of suite `peers`, and how far a system's lie from them."""

from __future__ import annotations

import math
import os
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from .cases import Case, case
from .sampling import sample

# From here on a table says "every bit": two equal latents have no finite figure.
EQUAL_DB = 200.0


def psnr_db(reference: Tensor, found: Tensor) -> float:
    """PSNR of a latent, by the range of the uncached one."""
    error = float((found.double() - reference.double()).square().mean())
    peak = float(reference.max() - reference.min())
    return min(EQUAL_DB, 10 * math.log10(peak**2 / error)) if error else EQUAL_DB


def reference(of: Case, seed: int, folder: Path) -> Tensor:
    """The uncached latent of a case; the first row that asks computes it for all.

    Args:
        of: the case, whose network may be patched by now: another one is made for it.
        seed: of the example.
        folder: that rows share.
    """
    kept = folder / f"{of.size}-{of.model}-{seed}.safetensors"
    if not kept.exists():
        plain = case(of.model, of.size)
        part = kept.with_suffix(f".{os.getpid()}.part")
        save_file({"latent": sample(plain, plain.network, plain.example(seed))}, part)
        part.replace(kept)
    return load_file(kept)["latent"]
