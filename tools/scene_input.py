"""What one asset is made from: the images the model is shown, and the truth where it is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from turbo4d.models.render import ELEVATION_RAD
from turbo4d.models.scenes import Scene, render_scene
from turbo4d.tools.failures import CallError


@dataclass(frozen=True)
class SceneInput:
    """The input of one asset; V views, F frames, images in [0, 1]."""

    name: str
    index: int | None  # of a held-out scene; None for a folder
    frames: Tensor  # [F, 3, H, W], view 0 at every frame
    views: Tensor  # [V, 3, H, W], every view at frame 0
    azimuth_rad: Tensor  # [V]
    polar_rad: Tensor  # [V], from the vertical
    truth: Tensor | None  # [V, F, 3, H, W]
    mask: Tensor | None  # [V, F, 1, H, W], 1 inside the object


def held_out_scene(index: int, views: int, frames: int, size: int) -> SceneInput:
    """Held-out scene `index`, which no training saw."""
    return scene_input(render_scene(index, "held_out", views=views, frames=frames, size=size))


def scene_input(scene: Scene) -> SceneInput:
    """What a model is shown of a rendered scene, and the truth it is judged by."""
    return SceneInput(
        name=f"scene {scene.index}",
        index=scene.index,
        frames=scene.images[0],
        views=scene.images[:, 0],
        azimuth_rad=scene.azimuth_rad,
        polar_rad=scene.polar_rad,
        truth=scene.images,
        mask=scene.mask,
    )


def scene_folder(folder: Path, views: int, frames: int, size: int) -> SceneInput:
    """A folder of `frame_0.png ...` (view 0, every frame) and `view_0.png ...` (frame 0).

    The cameras stand on a circle, evenly spaced, at the elevation of the held-out scenes; a
    transparent ground becomes white.

    Raises:
        CallError: images are missing, too many, unreadable, or of another size.
    """
    if not folder.is_dir():
        raise CallError(
            f"--input {str(folder)!r} is not a folder; name one that holds frame_0.png."
        )
    shown = {stem: _read(folder, stem, count, size) for stem, count in _wanted(views, frames)}
    return SceneInput(
        name=folder.name,
        index=None,
        frames=shown["frame"],
        views=shown["view"],
        azimuth_rad=torch.arange(views) * (2.0 * math.pi / views),
        polar_rad=torch.full((views,), math.pi / 2 - ELEVATION_RAD),
        truth=None,
        mask=None,
    )


def _wanted(views: int, frames: int) -> tuple[tuple[str, int], tuple[str, int]]:
    return ("frame", frames), ("view", views)


def _read(folder: Path, stem: str, count: int, size: int) -> Tensor:
    found = len(list(folder.glob(f"{stem}_*.png")))
    names = [f"{stem}_{index}.png" for index in range(count)]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or found != count:
        lacking = f" and {missing[0]} is missing" if missing else ""
        raise CallError(
            f"--input {str(folder)!r} has {found} {stem} images{lacking}; the model wants {count}, "
            f"{stem}_0.png to {stem}_{count - 1}.png."
        )
    return torch.stack([_image(folder / name, size) for name in names])


def _image(path: Path, size: int) -> Tensor:
    try:
        with Image.open(path) as file:
            image = file.convert("RGBA")
    except (OSError, SyntaxError) as error:  # Pillow reports some broken files as SyntaxError
        raise CallError(
            f"{path.name} is not a readable image; give a PNG of {size} x {size}."
        ) from error
    if image.size != (size, size):
        raise CallError(
            f"{path.name} is {image.width} x {image.height} pixels; every image of the scene must "
            f"be {size} x {size}, so resize it."
        )
    white = Image.new("RGBA", image.size, "white")
    pixels = np.asarray(Image.alpha_composite(white, image).convert("RGB"))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255.0
