"""The shipped weights: their hash, their card, and that they beat what needs no model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from turbo4d.models.branches import Branches
from turbo4d.models.conditioning import build_conditioning
from turbo4d.models.errors import CheckpointError
from turbo4d.models.guiders import SpatiotemporalPredictionGuider
from turbo4d.models.metrics import psnr
from turbo4d.models.nano import VAE_PREFIX, load_nano, nano_sha256, weights_path
from turbo4d.models.sampler import guided_denoiser, sample_euler
from turbo4d.models.scenes import render_scene
from turbo4d.models.schedule import edm_sigmas
from turbo4d.models.trivial import trivial_predictions

STEPS = 4  # of the card's 20, to stay fast


def test_hash_is_the_cards() -> None:
    card = weights_path().with_name("README.md").read_text("utf-8")
    figures = json.loads(weights_path().with_name("nano-v1.json").read_text("utf-8"))
    assert f"sha256 `{nano_sha256()}`" in card
    assert figures["weights_sha256"] == nano_sha256()


def test_card_states_what_was_measured() -> None:
    figures = json.loads(weights_path().with_name("nano-v1.json").read_text("utf-8"))
    card = weights_path().with_name("README.md").read_text("utf-8")
    assert figures["split"] == "held_out"
    assert [row["scene"] for row in figures["rows"]] == list(range(32))
    assert f"**{figures['margin_db']:.2f} dB**" in card
    assert figures["margin_db"] >= 6.0
    assert figures["object_share_min"] >= 0.2


def test_weights_are_small_and_half_precision() -> None:
    assert weights_path().stat().st_size <= 16 * 2**20
    assert {value.dtype for value in load_file(weights_path()).values()} == {torch.float16}


def test_what_is_loaded_is_float32_and_finite() -> None:
    network, vae = load_nano()
    for module in (network, vae):
        assert not module.training
        for value in module.state_dict().values():
            assert value.dtype == torch.float32
            assert value.isfinite().all()


@torch.no_grad()
def test_sample_beats_every_trivial_predictor() -> None:
    scene = render_scene(0)
    network, vae = load_nano()
    c, uc = build_conditioning(
        vae.encode(scene.images[0])[None],
        vae.encode(scene.images[:, 0])[None],
        scene.polar_rad,
        scene.azimuth_rad,
    )
    noise = torch.randn(c["concat"].shape, generator=torch.Generator().manual_seed(0))
    sigmas = edm_sigmas(STEPS)
    guider = SpatiotemporalPredictionGuider(2.0, 1.0)
    denoiser = guided_denoiser(network, Branches(c, uc, 5, 4), guider, sigmas)
    latent = sample_euler(denoiser, noise, sigmas).unflatten(0, (5, 4))
    sample = vae.decode(latent.transpose(0, 1))
    found = trivial_predictions(scene.images[0], scene.images[:, 0])
    best = max(psnr(images, scene.images, scene.mask) for images in found.values())
    assert psnr(sample, scene.images, scene.mask) > best + 5.0


def test_a_file_without_the_autoencoder_is_refused(tmp_path: Path) -> None:
    weights = load_file(weights_path())
    path = tmp_path / "half.safetensors"
    save_file({k: v for k, v in weights.items() if not k.startswith(VAE_PREFIX)}, path)
    with pytest.raises(CheckpointError, match="load_nano") as caught:
        load_nano(path)
    assert str(caught.value) == (
        f"load_nano: {path} does not hold the autoencoder's 30 tensors under 'first_stage_model.'."
    )
