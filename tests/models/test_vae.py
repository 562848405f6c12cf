"""The autoencoder: shapes, locality, and how much of a held-out scene survives it."""

from __future__ import annotations

import torch
from turbo4d.models.metrics import psnr
from turbo4d.models.nano import load_nano
from turbo4d.models.random_weights import fill_random
from turbo4d.models.scenes import render_scene
from turbo4d.models.vae import NanoVAE


def test_shapes_keep_the_leading_axes() -> None:
    vae = NanoVAE()
    with torch.no_grad():
        latents = vae.encode(torch.rand(2, 3, 3, 32, 24))
        images = vae.decode(latents)
    assert latents.shape == (2, 3, 4, 8, 6)
    assert images.shape == (2, 3, 3, 32, 24)
    assert images.min() >= 0
    assert images.max() <= 1


def test_it_is_local() -> None:
    """A pixel far away changes nothing: latents of an object do not depend on the rest."""
    vae = NanoVAE()
    fill_random(vae)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    other = image.clone()
    other[..., 60:, 60:] = 0
    with torch.no_grad():
        before, after = vae.encode(image), vae.encode(other)
    assert torch.equal(before[..., :8, :8], after[..., :8, :8])
    assert not torch.equal(before, after)


def test_latents_are_standardised_by_the_buffers() -> None:
    vae = NanoVAE()
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        plain = vae.encode(image)
        vae.shift.fill_(2.0)
        vae.scale.fill_(4.0)
        scaled = vae.encode(image)
        torch.testing.assert_close(scaled, (plain - 2.0) / 4.0)
        decoded = vae.decode(scaled)
        vae.shift.fill_(0.0)
        vae.scale.fill_(1.0)
        torch.testing.assert_close(decoded, vae.decode(plain))


def test_trained_weights_keep_a_held_out_scene() -> None:
    """Measured with the shipped weights; the card has the mean over 32 scenes."""
    _, vae = load_nano()
    scene = render_scene(0)
    with torch.no_grad():
        latents = vae.encode(scene.images)
        rebuilt = vae.decode(latents)
    assert psnr(rebuilt, scene.images, scene.mask) > 25.0
    assert 0.8 < latents.std() < 1.2
