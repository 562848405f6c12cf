"""Stage `export` of train_nano.py: average weights and autoencoder, float16, in one file."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from turbo4d.models.nano import PUBLIC_PREFIX, VAE_PREFIX

LIMIT_BYTES = 16 * 2**20


def export(work: Path, run: Path, path: Path, force: bool = False) -> None:
    """Writes the weights that `load_nano` reads.

    Args:
        work: holds `vae_tuned.pt`, or `vae.pt`.
        run: holds `unet.pt`, whose average weights are taken.
        path: of the file.
        force: replace a file that is there.

    Raises:
        SystemExit: the file is there, or would be larger than 16 MiB.
    """
    if path.exists() and not force:
        raise SystemExit(f"export: {path.name} is there and frozen; give --weights or --force.")
    tuned = work / "vae_tuned.pt"
    vae = torch.load(tuned if tuned.exists() else work / "vae.pt", weights_only=True)
    unet = torch.load(run / "unet.pt", map_location="cpu", weights_only=True)
    weights: dict[str, Tensor] = {PUBLIC_PREFIX + key: v for key, v in unet["average"].items()}
    weights |= {VAE_PREFIX + key: v for key, v in vae.items()}
    half = {key: value.cpu().half().contiguous() for key, value in weights.items()}
    size = sum(value.nbytes for value in half.values())
    if size > LIMIT_BYTES:
        raise SystemExit(f"export: {size} bytes of weights; wanted at most {LIMIT_BYTES}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.partial")
    save_file(half, part)
    part.chmod(0o644)
    part.replace(path)
    print(f"export: {path.name}, {size / 2**20:.1f} MiB, step {unet['step']}", flush=True)
