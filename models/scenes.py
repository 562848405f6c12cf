"""Scenes: a seed goes in, all views of all frames and the object mask come out.

The three splits draw from disjoint seed spaces by construction: the generator of scene N is keyed
by (split, N), and numpy's SeedSequence gives different keys independent streams. The nano weights
saw `train` only, were chosen on `validation`, and are judged on `held_out`.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .creature import COLOURS, draw_creature, pose
from .render import ELEVATION_RAD, render_ellipsoids

SPLITS = {"train": 0, "validation": 1, "held_out": 2}
ENTROPY = 0x7475_7262_6F34_64  # "turbo4d"


@dataclass(frozen=True)
class Scene:
    """One rendered scene; V views, F frames, H x W pixels."""

    images: Tensor  # [V, F, 3, H, W] float32 in [0, 1], white ground
    mask: Tensor  # [V, F, 1, H, W] float32, 1 where more than half the pixel is object
    azimuth_rad: Tensor  # [V], relative to view 0
    polar_rad: Tensor  # [V], angle from the vertical
    index: int
    split: str

    @property
    def coverage(self) -> float:
        """Share of all pixels that are object."""
        return float(self.mask.mean())


def scene_rng(index: int, split: str) -> np.random.Generator:
    """The generator of scene `index`; streams of different splits are independent.

    Raises:
        ValueError: the split is unknown or the index negative.
    """
    if split not in SPLITS:
        raise ValueError(f"scenes: split {split!r} is unknown; choose one of {sorted(SPLITS)}")
    if index < 0:
        raise ValueError(f"scenes: scene index {index} is negative; use 0 or above")
    return np.random.Generator(
        np.random.PCG64(np.random.SeedSequence(ENTROPY, spawn_key=(SPLITS[split], index)))
    )


def render_scene(
    index: int,
    split: str = "held_out",
    views: int = 4,
    frames: int = 5,
    size: int = 64,
    motion: float = 1.0,
) -> Scene:
    """Renders scene `index` of a split.

    Args:
        index: 0 or above.
        split: `train`, `validation` or `held_out`.
        views: V cameras, evenly spaced on a circle, view 0 facing the creature.
        frames: F frames, one period of the motion.
        size: H = W in pixels.
        motion: all amplitudes of the motion times this; 0 stands still.

    Returns:
        The scene, float32 on the CPU; the same arguments always give the same scene.
    """
    creature = draw_creature(scene_rng(index, split)).moving(motion)
    centres, axes = pose(creature, frames)
    azimuth_rad = torch.arange(views, dtype=torch.float64) * (2.0 * math.pi / views)
    images, coverage = render_ellipsoids(
        torch.from_numpy(centres).float(),
        torch.from_numpy(axes).float(),
        torch.from_numpy(np.stack([creature.colours[name] for name in COLOURS])).float(),
        creature.waist,
        azimuth_rad.float(),
        size,
    )
    return Scene(
        images=images,
        mask=(coverage > 0.5).float(),
        azimuth_rad=azimuth_rad.float(),
        polar_rad=torch.full((views,), math.pi / 2 - ELEVATION_RAD),
        index=index,
        split=split,
    )
