"""Stages `render` and `latents` of train_nano.py: scenes to disk, images to latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from turbo4d.models.scenes import render_scene
from turbo4d.models.vae import NanoVAE

CHUNK = 100  # scenes per file


def render_chunks(work: Path, split: str, scenes: int, worker: int = 0, workers: int = 1) -> None:
    """Renders the first scenes of a split to files of images and masks; skips what is there.

    Args:
        work: files go to `images/<split>_<chunk>.npz`: `images` uint8 [CHUNK, V, F, 3, H, W] and
            `masks` uint8 [CHUNK, V, F, 1, H, W].
        split: of the scenes.
        scenes: how many.
        worker: of `workers`; it renders every `workers`-th file.
        workers: processes that share the work.
    """
    folder = work / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for chunk in range(worker, (scenes + CHUNK - 1) // CHUNK, workers):
        path = folder / f"{split}_{chunk:04d}.npz"
        if path.exists():
            continue
        indices = range(chunk * CHUNK, min(scenes, (chunk + 1) * CHUNK))
        rendered = [render_scene(index, split) for index in indices]
        images = torch.stack([scene.images for scene in rendered])
        masks = torch.stack([scene.mask for scene in rendered])
        part = path.with_suffix(".part.npz")
        np.savez(part, images=(images * 255.0).round().byte().numpy(), masks=masks.byte().numpy())
        part.rename(path)
        print(f"render: {path.name}", flush=True)


def load_images(work: Path, split: str, chunks: int | None = None) -> tuple[Tensor, Tensor]:
    """Images and masks of a split's first `chunks` files, flat: uint8 [N, 3 or 1, H, W]."""
    paths = sorted((work / "images").glob(f"{split}_????.npz"))[:chunks]
    loaded = [np.load(path) for path in paths]
    images = torch.from_numpy(np.concatenate([item["images"] for item in loaded]))
    masks = torch.from_numpy(np.concatenate([item["masks"] for item in loaded]))
    return images.flatten(0, 2), masks.flatten(0, 2)


def load_vae(work: Path, device: str) -> NanoVAE:
    """The autoencoder that stage `vae` left."""
    vae = NanoVAE().to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    vae.load_state_dict(torch.load(work / "vae.pt", map_location=device, weights_only=True))
    return vae.eval()


@torch.no_grad()
def encode_chunks(work: Path, split: str, device: str, worker: int = 0, workers: int = 1) -> None:
    """Encodes every rendered file of a split; skips what is there.

    Args:
        work: files go to `latents/<split>_<chunk>.npy`, float16 [CHUNK, V, F, 4, h, w].
        split: of the scenes.
        device: where the encoder runs.
        worker: of `workers`; it encodes every `workers`-th file.
        workers: processes that share the work.
    """
    folder = work / "latents"
    folder.mkdir(parents=True, exist_ok=True)
    vae = load_vae(work, device)
    for source in sorted((work / "images").glob(f"{split}_????.npz"))[worker::workers]:
        path = folder / f"{source.stem}.npy"
        if path.exists():
            continue
        images = torch.from_numpy(np.load(source)["images"])
        latents = [
            vae.encode((group.to(device).float() / 255.0).to(memory_format=torch.channels_last))
            for group in images.flatten(0, 2).split(20)
        ]
        part = folder / f"part_{source.stem}.npy"
        np.save(part, torch.cat(latents).half().cpu().unflatten(0, images.shape[:3]).numpy())
        part.rename(path)
        print(f"latents: {path.name}", flush=True)


def load_latents(work: Path, split: str) -> Tensor:
    """All encoded scenes of a split, float16 [N, V, F, 4, h, w]."""
    paths = sorted((work / "latents").glob(f"{split}_????.npy"))
    return torch.from_numpy(np.concatenate([np.load(path) for path in paths]))
