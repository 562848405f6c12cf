"""Classifier-free guidance scaled by an image's place in the frames x views grid."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Guider(Protocol):
    """Says how strongly each image of a batch is guided."""

    def scale(self, frames: int, views: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Guidance scales, Tensor [frames * views], frame-major, computed in `dtype`."""
        ...


@dataclass(frozen=True)
class VanillaCFG:
    """The same guidance for every image."""

    strength: float

    def scale(self, frames: int, views: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Guidance scales, Tensor [frames * views], all equal to `strength`."""
        return torch.full((frames * views,), self.strength, dtype=dtype)


@dataclass(frozen=True)
class LinearPredictionGuider:
    """Guidance rising evenly over the flat sequence of images, as SV4D 2.0 (12 x 4) uses it."""

    max_scale: float
    min_scale: float = 1.0

    def scale(self, frames: int, views: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Guidance scales, Tensor [frames * views]: `min_scale` at the first, `max_scale` last."""
        return torch.linspace(self.min_scale, self.max_scale, frames * views, dtype=dtype)


@dataclass(frozen=True)
class TrianglePredictionGuider:
    """Guidance rising to the middle of the orbit and falling again, as SV3D uses it."""

    max_scale: float
    min_scale: float = 1.0
    period: float = 1.0

    def scale(self, frames: int, views: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Guidance scales, Tensor [frames * views]: a triangle wave over the flat sequence."""
        wave = triangle_wave(torch.linspace(0, 1, frames * views, dtype=dtype), self.period)
        return wave * (self.max_scale - self.min_scale) + self.min_scale


@dataclass(frozen=True)
class SpatiotemporalPredictionGuider:
    """Guidance rising with the frame and with the distance from the input view, as SV4D uses it.

    The frame counts by its position in the batch: a reversed batch reverses the frames, not the
    scales.
    """

    max_scale: float
    min_scale: float = 1.0

    def scale(self, frames: int, views: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Guidance scales, Tensor [frames * views]: half from the frame, half from the view."""
        by_frame = torch.linspace(0, 1, frames, dtype=dtype) * 0.5
        by_view = triangle_wave(torch.linspace(0, 1, views, dtype=dtype)) * 0.5
        grid = (by_frame[:, None] + by_view[None, :]).flatten()
        return grid * (self.max_scale - self.min_scale) + self.min_scale


@dataclass(frozen=True)
class RescaledGuider:
    """Another guider, with guided predictions brought back to the contrast of unguided ones.

    Args:
        guider: gives the scales.
        share: how much of the excess contrast is taken back, from 0 for none to 1 for all.
    """

    guider: Guider
    share: float = 0.7

    def scale(self, frames: int, views: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Guidance scales, Tensor [frames * views], those of the other guider."""
        return self.guider.scale(frames, views, dtype)


@dataclass(frozen=True)
class IntervalGuider:
    """Another guider between two noise levels; steps outside them have no guidance, a scale of 1.

    Args:
        guider: gives the scales between. Contrast is brought back outside: RescaledGuider takes
            this one, not the other way round.
        lowest: smallest sigma that is guided.
        highest: largest.

    Raises:
        ValueError: the other guider is a RescaledGuider.

    Source: Kynkaanniemi et al. 2024 (Applying Guidance in a Limited Interval), section 3.
    """

    guider: Guider
    lowest: float
    highest: float

    def __post_init__(self) -> None:
        if isinstance(self.guider, RescaledGuider):
            raise ValueError(
                "IntervalGuider got a RescaledGuider; wanted one that only scales: rescale the "
                "interval instead, RescaledGuider(IntervalGuider(...), share)."
            )

    def scale(self, frames: int, views: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Guidance scales, Tensor [frames * views], of a step between the levels."""
        return self.guider.scale(frames, views, dtype)


def step_scales(guider: Guider, frames: int, views: int, sigmas: Tensor) -> list[Tensor]:
    """Guidance scales of each step, Tensors [frames * views] of sigma's dtype, on the CPU.

    Args:
        guider: gives them.
        frames: of the grid.
        views: of the grid.
        sigmas: noise levels [steps]; their values are read, once, for an IntervalGuider alone.
    """
    if isinstance(guider, RescaledGuider):
        return step_scales(guider.guider, frames, views, sigmas)
    scale = guider.scale(frames, views, sigmas.dtype)
    if not isinstance(guider, IntervalGuider):
        return [scale] * len(sigmas)
    low, high = guider.lowest, guider.highest
    ones = torch.ones_like(scale)
    return [scale if low <= sigma <= high else ones for sigma in sigmas.tolist()]


def triangle_wave(position: Tensor, period: float = 1.0) -> Tensor:
    """Triangle wave of height 1: 0 at multiples of `period`, 1 half-way between.

    Args:
        position: places along the wave, any shape.
        period: length of one rise and fall, in units of `position`.

    Returns:
        Tensor of position's shape, in [0, 1].
    """
    turns = position / period
    return 2 * (turns - torch.floor(turns + 0.5)).abs()


def combine(uncond: Tensor, cond: Tensor, scale: Tensor) -> Tensor:
    """Guided prediction: `uncond + scale * (cond - uncond)`, one scale per image.

    Args:
        uncond: prediction without conditioning, [N, C, H, W].
        cond: prediction with conditioning, same shape.
        scale: guidance scales, [N], same device.

    Returns:
        Tensor [N, C, H, W].

    Source: Ho and Salimans 2022; their 1 + w is our scale.
    """
    return uncond + scale.view(-1, 1, 1, 1) * (cond - uncond)


def rescale(guided: Tensor, cond: Tensor, share: float) -> Tensor:
    """A guided prediction with the contrast that guidance has added taken back.

    Args:
        guided: from `combine`, [N, C, H, W].
        cond: prediction with conditioning, same shape.
        share: from 0, which changes nothing, to 1.

    Returns:
        Tensor [N, C, H, W]: one factor for the whole asset, so that its images keep step.

    Source: Lin et al. 2023 (Common diffusion noise schedules are flawed), section 3.4; their phi
        is our share.
    """
    return guided * (share * cond.std() / guided.std() + (1.0 - share))
