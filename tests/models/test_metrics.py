"""Metrics against numbers worked out by hand, and against a plain double loop."""

from __future__ import annotations

import math

import pytest
import torch
from turbo4d.models.metrics import mean_squared_error, psnr, ssim


def test_psnr_of_a_constant_error() -> None:
    reference = torch.full((2, 3, 16, 16), 0.5)
    assert psnr(reference + 0.1, reference) == pytest.approx(20.0, abs=1e-5)
    assert psnr(reference, reference) == math.inf


def test_images_are_clamped_before_they_are_compared() -> None:
    reference = torch.ones(1, 3, 4, 4)
    assert psnr(reference + 0.7, reference) == math.inf


def test_mask_counts_its_pixels_only() -> None:
    reference = torch.zeros(1, 3, 4, 4)
    images = reference.clone()
    images[..., 0, 0] = 0.5
    images[..., 3, 3] = 1.0
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 0, 0] = mask[..., 0, 1] = 1
    assert mean_squared_error(images, reference, mask) == pytest.approx(0.125)
    assert mean_squared_error(images, reference) == pytest.approx((0.25 + 1.0) / 16)


def test_error_is_pooled_over_images_before_the_logarithm() -> None:
    reference = torch.zeros(2, 3, 4, 4)
    images = torch.stack([reference[0], reference[1] + 0.2])
    assert psnr(images, reference) == pytest.approx(-10 * math.log10(0.02), abs=1e-5)


def test_ssim_against_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 13, 12, generator=generator, dtype=torch.float64)
    y = (x + 0.1 * torch.rand(x.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    bell = [math.exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(11)]
    window = torch.tensor([[a * b for b in bell] for a in bell], dtype=torch.float64)
    window /= window.sum()
    found = []
    for channel in range(3):
        for top in range(3):
            for left in range(2):
                a = x[0, channel, top : top + 11, left : left + 11]
                b = y[0, channel, top : top + 11, left : left + 11]
                ma, mb = (window * a).sum(), (window * b).sum()
                va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
                cov = (window * (a - ma) * (b - mb)).sum()
                c1, c2 = 0.01**2, 0.03**2
                found.append(
                    (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
                )
    assert ssim(x, y) == pytest.approx(float(torch.stack(found).mean()), abs=1e-9)
    assert ssim(x, x) == pytest.approx(1.0, abs=1e-12)


def test_what_is_refused() -> None:
    image = torch.zeros(1, 3, 4, 4)
    with pytest.raises(ValueError, match="metrics: ") as caught:
        psnr(image, torch.zeros(2, 3, 4, 4))
    assert str(caught.value) == (
        "metrics: images are (1, 3, 4, 4), the reference (2, 3, 4, 4); give equal shapes."
    )
    with pytest.raises(ValueError, match="metrics: ") as caught:
        psnr(image, image, torch.zeros(1, 1, 4, 4))
    assert str(caught.value) == "metrics: the mask is empty; give one with at least one pixel."
