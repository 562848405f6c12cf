"""How far images are from a reference: PSNR, PSNR inside a mask, SSIM."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def mean_squared_error(images: Tensor, reference: Tensor, mask: Tensor | None = None) -> float:
    """Mean squared error of images clamped to [0, 1].

    Args:
        images: [..., 3, H, W].
        reference: the same shape.
        mask: [..., 1, H, W], 1 where pixels count; None counts all.

    Raises:
        ValueError: the shapes differ, or the mask is empty.
    """
    if images.shape != reference.shape:
        raise ValueError(
            f"metrics: images are {tuple(images.shape)}, the reference {tuple(reference.shape)}; "
            "give equal shapes."
        )
    error = (images.double().clamp(0, 1) - reference.double().clamp(0, 1)).square()
    if mask is None:
        return error.mean().item()
    weight = mask.double().expand(error.shape)
    total = weight.sum()
    if total == 0:
        raise ValueError("metrics: the mask is empty; give one with at least one pixel.")
    return ((error * weight).sum() / total).item()


def psnr(images: Tensor, reference: Tensor, mask: Tensor | None = None) -> float:
    """10 log10(1 / MSE) in dB, the MSE pooled over everything given; infinite where equal.

    Args and errors: those of `mean_squared_error`.
    """
    error = mean_squared_error(images, reference, mask)
    return math.inf if error == 0 else -10.0 * math.log10(error)


def ssim(images: Tensor, reference: Tensor) -> float:
    """Structural similarity, the mean over images, channels and every whole window.

    Args:
        images: [..., 3, H, W] in [0, 1], H and W at least 11.
        reference: the same shape.

    Source: Wang et al. 2004: Gaussian window of 11 x 11 with sigma 1.5, K1 0.01, K2 0.03, L 1.
    """
    height, width = images.shape[-2:]
    x = images.double().clamp(0, 1).reshape(-1, 1, height, width)
    y = reference.double().clamp(0, 1).reshape(-1, 1, height, width)
    place = torch.arange(_WINDOW, dtype=torch.float64, device=x.device) - (_WINDOW - 1) / 2
    bell = torch.exp(-(place**2) / (2 * _SIGMA**2))
    bell = bell / bell.sum()

    def smooth(image: Tensor) -> Tensor:
        rows = F.conv2d(image, bell.view(1, 1, -1, 1))
        return F.conv2d(rows, bell.view(1, 1, 1, -1))

    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    likeness = ((2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)) / (
        (mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2)
    )
    return likeness.mean().item()
