"""How a model of ours is sampled and judged: Euler's method, PSNR of the images in the object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from turbo4d.models.metrics import psnr
from turbo4d.models.sampler import guided_denoiser, sample_euler
from turbo4d.models.scenes import render_scene
from turbo4d.models.schedule import edm_sigmas
from turbo4d.tools.asset import Asset, decode, image_size, prepare
from turbo4d.tools.fidelity import capped, object_mask
from turbo4d.tools.load_model import LoadedModel
from turbo4d.tools.sampling import GUIDER
from turbo4d.tools.scene_input import held_out_scene, scene_input


class NanoSampler:
    """Samples scenes, and compares samples in the object.

    Args:
        model: to be sampled.
        steps: of the schedule.
    """

    def __init__(self, model: LoadedModel, steps: int) -> None:
        self._model = model
        self._steps = steps
        self._decoded: tuple[Tensor, Tensor] | None = None  # the last reference, and its images

    def __call__(self, denoiser: Callable[..., Any], asset: Asset) -> Tensor:
        """The latent [F*V, 4, h, w], in one call of the denoiser for each step."""
        sigmas = edm_sigmas(self._steps).to(asset.noise)
        guided = guided_denoiser(denoiser, asset.conditioning, GUIDER, sigmas)
        return sample_euler(guided, asset.noise, sigmas)

    def images(self, latent: Tensor) -> Tensor:
        """Images [V, F, 3, H, W] in [0, 1] of a latent."""
        return decode(self._model, latent)

    def fidelity(self, reference: Tensor, sample: Tensor, asset: Asset) -> float:
        """PSNR in dB of the images in the object, of two latents."""
        plain = self._reference(reference)
        return capped(psnr(self.images(sample), plain, object_mask(asset.scene, plain)))

    def by_view_frame(
        self, reference: Tensor, sample: Tensor, asset: Asset
    ) -> list[list[float | None]]:
        """The same of each view and frame; None where the object is not in the image."""
        plain, ours = self._reference(reference), self.images(sample)
        mask = object_mask(asset.scene, plain)
        return [
            [
                capped(psnr(ours[v, f], plain[v, f], mask[v, f])) if mask[v, f].any() else None
                for f in range(plain.shape[1])
            ]
            for v in range(plain.shape[0])
        ]

    def _reference(self, reference: Tensor) -> Tensor:
        if self._decoded is None or self._decoded[0] is not reference:
            self._decoded = reference, self.images(reference)
        return self._decoded[1]


def calibration_assets(model: LoadedModel, count: int) -> list[Asset]:
    """Scenes to calibrate on, of the validation split, each with noise of its own."""
    config = model.config
    shape = {
        "views": config.views or 1,
        "frames": config.frames or 1,
        "size": image_size(model),
    }
    scenes = [scene_input(render_scene(index, "validation", **shape)) for index in range(count)]
    return [prepare(model, scene, seed=index + 1) for index, scene in enumerate(scenes)]


def held_out_assets(model: LoadedModel, count: int, seed: int) -> list[Asset]:
    """Scenes that no calibration and no training sees, with the noise that every table has."""
    config = model.config
    shape = config.views or 1, config.frames or 1, image_size(model)
    return [prepare(model, held_out_scene(index, *shape), seed) for index in range(count)]
