"""A bundle of one of our models, as what can be sampled: its denoiser, and the model's own images.

A bundle holds the denoiser alone. The autoencoder is the model's, from its packaged weights or from
the checkpoint that the bundle was built with.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from turbo4d.models.config import SV4DConfig
from turbo4d.models.vae import NanoVAE
from turbo4d.runtime.bundle.denoiser import BundleDenoiser
from turbo4d.runtime.bundle.dtypes import dtype_named
from turbo4d.tools.failures import CallError
from turbo4d.tools.load_model import shown_by


@dataclass(frozen=True)
class BundleModel:
    """What `asset` and the reports ask of a model that is sampled."""

    name: str
    config: SV4DConfig
    vae: NanoVAE
    denoiser: BundleDenoiser
    device: torch.device
    dtype: torch.dtype
    weights_sha256: str  # of the bundle's weight file
    weights: str = "of the bundle"

    @property
    def shows_scenes(self) -> bool:
        """Whether a sample can be judged against its scene."""
        return self.name == "nano"


def bundle_model(
    denoiser: BundleDenoiser, checkpoint: Path | None, device: torch.device
) -> BundleModel:
    """What samples a bundle's denoiser.

    Args:
        denoiser: as loaded.
        checkpoint: that the bundle was built with, None for none.
        device: that it runs on.

    Raises:
        CallError: the bundle is of no model of ours.
    """
    manifest = denoiser.manifest
    if not manifest.model:
        raise CallError(
            "the bundle is of no model that turbo4d knows how to sample; load it with turbo4d.load "
            "and call it in the model's own loop."
        )
    config, vae = shown_by(manifest.model, checkpoint)
    held = manifest.files.get(manifest.weights_file)
    return BundleModel(
        name=manifest.model,
        config=config,
        vae=vae.to(device).eval().requires_grad_(False),
        denoiser=denoiser,
        device=device,
        dtype=dtype_named(manifest.dtype),
        weights_sha256=held.sha256 if held is not None else "",
    )
