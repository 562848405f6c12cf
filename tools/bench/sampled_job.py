"""A row that samples scenes of a model of ours, and is judged by the uncached samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor
from turbo4d.tools.asset import Asset, image_size, prepare
from turbo4d.tools.bench.references import References
from turbo4d.tools.bench.row import RowSpec
from turbo4d.tools.fidelity import refuse_nonfinite
from turbo4d.tools.load_model import LoadedModel
from turbo4d.tools.scene_input import held_out_scene

Sampler = Callable[[Asset], Tensor]


def assets_of(model: LoadedModel, scenes: int, seed: int) -> list[Asset]:
    """The first held-out scenes of a model."""
    config = model.config
    shape = (config.views or 1, config.frames or 1, image_size(model))
    return [prepare(model, held_out_scene(index, *shape), seed) for index in range(scenes)]


class SampledJob:
    """A job whose runs go through the scenes in turn.

    Args:
        model: not compiled.
        sampler: gives the latent of an asset, by whatever is measured.
        spec: with settings steps, scenes, seed.
        folder: of the uncached samples.
        says: what is to be said of the row besides, after the last run.

    Attributes:
        device: of the network.
    """

    def __init__(
        self,
        model: LoadedModel,
        sampler: Sampler,
        spec: RowSpec,
        folder: Path,
        says: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.device: torch.device = model.device
        self._model, self._sampler, self._says = model, sampler, says
        settings = spec.settings
        self._assets = assets_of(model, settings["scenes"], settings["seed"])
        self._references = References(folder, model, settings["steps"], settings["seed"])
        self._latents: dict[int, Tensor] = {}
        self._turn = 0
        self._uncached = spec.system == "eager"

    def first(self) -> None:
        """The first scene; it compiles."""
        self._sampler(self._assets[0])

    def run(self) -> Tensor:
        """The next scene, from noise to latent."""
        scene = self._turn % len(self._assets)
        self._turn += 1
        self._latents[scene] = self._sampler(self._assets[scene])
        return self._latents[scene]

    def facts(self) -> dict[str, Any]:
        """Fidelity, the mean over the scenes that were sampled; PSNR in the object's worst too."""
        for scene, latent in sorted(self._latents.items()):
            refuse_nonfinite(latent, f"the sample of scene {scene}")
        if self._uncached:
            for scene, latent in self._latents.items():
                self._references.keep(self._assets[scene], latent)
        each = [
            self._references.judged(self._assets[scene], latent)
            for scene, latent in sorted(self._latents.items())
        ]
        found: dict[str, Any] = {
            name: mean(of[name] for of in each)
            for name, value in (each[0] if each else {}).items()
            if value is not None
        }
        if each:
            found["psnr_mask_worst_db"] = min(of["psnr_mask_db"] for of in each)
        return {
            **found,
            "scenes": sorted(self._latents),
            "weights": self._model.weights,
            "weights_sha256": self._model.weights_sha256,
            **self._says(),
        }

    def close(self) -> None:
        """Nothing is held."""
