"""Uncached samples that rows are judged by: made once, kept in a file beside the rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from turbo4d.models.metrics import psnr, ssim
from turbo4d.tools.asset import Asset, decode
from turbo4d.tools.fidelity import capped, object_mask, to_truth
from turbo4d.tools.load_model import LoadedModel
from turbo4d.tools.sampling import sample_plain


class References:
    """The uncached samples of a model's scenes.

    Args:
        folder: of the files.
        model: not compiled.
        steps: of the schedule.
        seed: of the noise.
    """

    def __init__(self, folder: Path, model: LoadedModel, steps: int, seed: int) -> None:
        self._folder, self._model, self._steps, self._seed = folder, model, steps, seed

    def latent(self, asset: Asset) -> Tensor:
        """The uncached latent [F*V, 4, h, w], read or sampled."""
        path = self._path(asset)
        if not path.exists():
            self.keep(asset, sample_plain(self._model, asset, self._steps))
        return load_file(path)["latent"].to(asset.noise.device)

    def keep(self, asset: Asset, latent: Tensor) -> None:
        """Write a sample, unless there is one."""
        path = self._path(asset)
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        save_file({"latent": latent.contiguous().cpu()}, partial)
        partial.replace(path)

    def judged(self, asset: Asset, latent: Tensor) -> dict[str, Any]:
        """Figures of a sample against the uncached one and against its scene.

        Args:
            asset: that was sampled.
            latent: the sample.
        """
        reference = decode(self._model, self.latent(asset))
        images, mask = decode(self._model, latent), object_mask(asset.scene, reference)
        return {
            "psnr_db": capped(psnr(images, reference)),
            "psnr_mask_db": capped(psnr(images, reference, mask)),
            "ssim": ssim(images, reference),
            **(to_truth(images, asset.scene) if self._model.shows_scenes else {}),
        }

    def _path(self, asset: Asset) -> Path:
        model = self._model
        words = (
            model.name.replace(":", "-"), model.weights_sha256[:12], f"{self._steps}steps",
            asset.scene.name.replace(" ", ""), f"seed{self._seed}",
        )  # fmt: skip
        return self._folder / f"{'-'.join(words)}.safetensors"
