"""Scenes sampled one after the other, each timed and written: what `generate` and `run` share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from turbo4d.tools.asset import Asset, Sampled, decode, image_size
from turbo4d.tools.asset_files import scene_folders, write_sample
from turbo4d.tools.fidelity import refuse_nonfinite
from turbo4d.tools.scene_input import SceneInput, held_out_scene, scene_folder
from turbo4d.tools.timing import timed

Say = Callable[[str], None]


def scenes_asked(args: argparse.Namespace, model: Sampled) -> list[SceneInput]:
    """The scenes that --scene or --input name.

    Raises:
        CallError: the folder does not hold them.
    """
    views, frames, size = model.config.views or 1, model.config.frames or 1, image_size(model)
    if args.input is not None:
        return [scene_folder(args.input, views, frames, size)]
    return [held_out_scene(index, views, frames, size) for index in args.scene or (0,)]


def sample_scenes(
    model: Sampled,
    sample: Callable[[Asset], Tensor],
    assets: Sequence[Asset],
    folder: Path,
    title: Callable[[str], str],
    device: torch.device,
    say: Say,
) -> tuple[list[float], Mapping[str, Tensor]]:
    """Sample every scene and write what is to be seen of it.

    Args:
        model: that decodes.
        sample: gives the latent of an asset.
        assets: one per scene.
        folder: an empty one.
        title: of the sheet, for a scene's name.
        device: that samples are made on.
        say: told what is going on.

    Returns:
        Seconds of each, and the images [V, F, 3, H, W] of each by its scene's name.
    """
    names, seconds = [asset.scene.name for asset in assets], list[float]()
    shown: dict[str, Tensor] = {}
    for name, place, asset in zip(names, scene_folders(folder, names), assets, strict=True):
        say(f"{name}: sampling")
        latent, taken = timed(partial(sample, asset), device)
        seconds.append(taken)
        refuse_nonfinite(latent, f"the sample of {name}")
        shown[name] = decode(model, latent)
        write_sample(place, shown[name], title(name))
    return seconds, shown
