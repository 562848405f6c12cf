"""Stages `vae` and `decoder` of train_nano.py: the autoencoder, then its decoder alone."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor
from turbo4d.models.vae import NanoVAE
from turbo4d.tools.training.data import load_images, load_vae

_LOG_EVERY = 100


def train_vae(
    work: Path, seconds: float, chunks: int, device: str, *, batch: int = 16, seed: int = 0
) -> None:
    """Trains encoder and decoder for a wall-clock budget; goes on from `vae.pt` where there is one.

    Args:
        work: reads the rendered training images, writes `vae.pt`.
        seconds: the learning rate falls to zero over them.
        chunks: files of images used.
        device: to train on.
        batch: images a step.
        seed: of weights, batches and noise.
    """
    torch.manual_seed(seed)
    fresh = NanoVAE().to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    vae = load_vae(work, device) if (work / "vae.pt").exists() else fresh
    images, masks = load_images(work, "train", chunks)
    _fit(vae, list(vae.parameters()), images, masks, seconds, 2e-3, 0.03, batch, work / "vae.jsonl")
    with torch.no_grad():
        some = images[torch.randperm(len(images))[:2000]].to(device)
        z = torch.cat([vae.encoder(part.float() / 127.5 - 1.0) for part in some.split(50)])
        vae.shift.copy_(z.mean((0, 2, 3)))
        vae.scale.copy_(z.std((0, 2, 3)))
    _write(vae, work / "vae.pt")


def tune_decoder(
    work: Path, seconds: float, chunks: int, device: str, *, noise: float, batch: int = 16
) -> None:
    """Trains the decoder on, the encoder frozen, so that latents already trained on stay true.

    Args:
        work: reads `vae.pt` and the rendered training images, writes `vae_tuned.pt`.
        seconds: the learning rate falls to zero over them.
        chunks: files of images used.
        device: to train on.
        noise: standard deviation put on standardised latents, about the denoiser's error.
        batch: images a step.
    """
    torch.manual_seed(1)
    tuned = work / "vae_tuned.pt"
    vae = load_vae(work, device)
    if tuned.exists():
        vae.load_state_dict(torch.load(tuned, map_location=device, weights_only=True))
    vae.encoder.requires_grad_(False)
    images, masks = load_images(work, "train", chunks)
    level = noise * float(vae.scale.mean())
    parameters = list(vae.decoder.parameters())
    _fit(vae, parameters, images, masks, seconds, 1e-3, level, batch, work / "decoder.jsonl")
    _write(vae, tuned)


def _fit(
    vae: NanoVAE,
    parameters: list[torch.nn.Parameter],
    images: Tensor,
    masks: Tensor,
    seconds: float,
    rate: float,
    noise: float,
    batch: int,
    log: Path,
) -> None:
    device = str(parameters[0].device)
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-4)
    start, step = time.time(), 0
    with log.open("a") as file:
        while (done := (time.time() - start) / seconds) < 1.0:
            fall = 0.5 + 0.5 * math.cos(math.pi * done)
            optimiser.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 100) * fall + 1e-6
            pick = torch.randint(len(images), (batch,))
            x = images[pick].to(device).float() / 127.5 - 1.0
            mask = masks[pick].to(device).float()
            loss, error = _loss(vae, x, mask, noise, device)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            if step % _LOG_EVERY == 0:
                mse = ((error.detach() * 0.5).square() * mask).sum() / (3 * mask.sum())
                row = {
                    "step": step,
                    "s": round(time.time() - start),
                    "loss": loss.item(),
                    "psnr_mask_db": -10.0 * mse.log10().item(),
                }
                print(json.dumps(row), file=file, flush=True)
                print("vae:", row, flush=True)
            step += 1


def _loss(
    vae: NanoVAE, x: Tensor, mask: Tensor, noise: float, device: str
) -> tuple[Tensor, Tensor]:
    """L1 + 4 MSE, object pixels weighted 4 to 1, + L1 of image gradients + a pull of latents to 0.

    Noise on the latents gives that pull something to weigh against, and teaches the decoder to
    forgive the error a denoiser leaves.
    """
    with torch.autocast(device, torch.bfloat16):
        z = vae.encoder(x.to(memory_format=torch.channels_last))
        y = vae.decoder(z + noise * torch.randn_like(z))
    error, z = y.float() - x, z.float()
    edges = 0.5 * (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean())
    pixels = ((error.abs() + 4.0 * error.square()) * (1.0 + 3.0 * mask)).mean()
    return pixels + edges + 1e-3 * z.square().mean(), error


def _write(vae: NanoVAE, path: Path) -> None:
    part = path.with_suffix(".part")
    torch.save(vae.state_dict(), part)
    part.rename(path)
