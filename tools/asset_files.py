"""The files that `generate` writes into a scene's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor
from turbo4d.tools.pictures import write_animation, write_difference, write_sheet


def scene_folders(folder: Path, names: Sequence[str]) -> list[Path]:
    """The folder itself for the first scene, and a new one within it for each other.

    Args:
        folder: exists.
        names: of the scenes, "scene 3" becoming scene_3.
    """
    places = scene_places(folder, names)
    for place in places[1:]:
        place.mkdir()
    return places


def scene_places(folder: Path, names: Sequence[str]) -> list[Path]:
    """Where the files of each scene lie."""
    return [folder, *(folder / name.replace(" ", "_") for name in names[1:])]


def write_sample(place: Path, images: Tensor, title: str) -> None:
    """Writes turbo.gif and sheet.png of images [V, F, 3, H, W] in [0, 1]."""
    write_animation(place / "turbo.gif", images)
    write_sheet(place / "sheet.png", images, title)


def write_comparison(place: Path, images: Mapping[str, Tensor], title: str) -> None:
    """Writes every picture of a comparison, and samples.safetensors.

    Args:
        place: an existing folder.
        images: baseline, turbo, control, perhaps ground_truth [V, F, 3, H, W] in [0, 1], and
            mask [V, F, 1, H, W].
        title: of the sheet.
    """
    write_sample(place, images["turbo"], title)
    write_animation(place / "baseline.gif", images["baseline"])
    write_difference(place / "difference.png", images["turbo"], images["baseline"])
    tensors = {name: image.float().contiguous() for name, image in images.items()}
    # save_file would make a file that only its owner can read.
    (place / "samples.safetensors").write_bytes(save(tensors))


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes JSON that every reader accepts: no NaN, no infinity."""
    text = json.dumps(data, indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
