"""A row of suite `peers`: one system sampling one case, over and over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from turbo4d.tools.fidelity import refuse_nonfinite

from .cases import Case
from .prepared import Prepared
from .references import psnr_db, reference
from .sampling import sample


class PeerJob:
    """Samples a case's example by a system, and judges the last latent by the uncached one.

    Args:
        case: what is sampled.
        system: what samples it; `reset` is part of the time.
        seed: of the example.
        folder: that rows share.
        says: what is to be said of the row besides, after the last run.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        case: Case,
        system: Prepared,
        seed: int,
        folder: Path,
        says: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._case, self._system, self._says = case, system, says
        self._seed, self._folder = seed, folder
        self._example = case.example(seed)
        self._latent: Tensor | None = None

    def first(self) -> None:
        """The first sample; it compiles."""
        self.run()

    def run(self) -> Tensor:
        """A sample, from noise to latent."""
        self._system.reset()
        self._latent = sample(self._case, self._system.denoiser, self._example, self._system.before)
        return self._latent

    def facts(self) -> dict[str, Any]:
        """PSNR of the latent, by the range of the uncached one; JobError where it holds NaN."""
        found = {"weights": "random", "steps": len(self._case.levels), **self._says()}
        if self._latent is not None:
            refuse_nonfinite(self._latent)
            uncached = reference(self._case, self._seed, self._folder)
            found["psnr_db"] = psnr_db(uncached, self._latent)
        return found

    def close(self) -> None:
        """Nothing is held."""
