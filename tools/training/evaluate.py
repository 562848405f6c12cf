"""Stage `evaluate` of train_nano.py: samples scenes and holds them against the truth."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from turbo4d.models.branches import Branches
from turbo4d.models.checkpoint import checkpoint_sha256
from turbo4d.models.conditioning import build_conditioning
from turbo4d.models.guiders import Guider, SpatiotemporalPredictionGuider
from turbo4d.models.metrics import psnr, ssim
from turbo4d.models.nano import load_nano
from turbo4d.models.sampler import guided_denoiser, sample_euler
from turbo4d.models.scenes import Scene, render_scene
from turbo4d.models.schedule import edm_sigmas
from turbo4d.models.trivial import trivial_predictions
from turbo4d.models.unet import SV4DUNet
from turbo4d.models.vae import NanoVAE
from turbo4d.tools.pictures import write_sheet

Row = dict[str, float]
_NO_TRIVIAL = ("nano", "autoencoder")


@torch.no_grad()
def sample_scene(
    network: SV4DUNet, vae: NanoVAE, scene: Scene, guider: Guider, steps: int = 20, seed: int = 0
) -> Tensor:
    """Samples a scene from its conditioning images alone.

    Args:
        network: the denoiser.
        vae: its autoencoder, on the same device.
        scene: view 0 and frame 0 of it are shown to the network.
        guider: guidance scales.
        steps: of the schedule.
        seed: of the noise.

    Returns:
        Images [V, F, 3, H, W] on the CPU.
    """
    device = next(network.parameters()).device
    images = scene.images.to(device)
    views, frames = images.shape[:2]
    c, uc = build_conditioning(
        vae.encode(images[0])[None],
        vae.encode(images[:, 0])[None],
        scene.polar_rad.to(device),
        scene.azimuth_rad.to(device),
    )
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(c["concat"].shape, generator=generator).to(device)
    sigmas = edm_sigmas(steps).to(noise)
    denoiser = guided_denoiser(network, Branches(c, uc, frames, views), guider, sigmas)
    latent = sample_euler(denoiser, noise, sigmas).unflatten(0, (frames, views))
    return vae.decode(latent.transpose(0, 1)).cpu()


@torch.no_grad()
def evaluate(
    network: SV4DUNet,
    vae: NanoVAE,
    scenes: Iterable[int],
    split: str,
    guider: Guider,
    steps: int = 20,
    sheets: Path | None = None,
) -> list[Row]:
    """Figures of every scene: nano's, the autoencoder's, each trivial predictor's.

    `_mask_db` is inside the object in all images, `_unseen_db` in the (V - 1) x (F - 1) images that
    are not among the conditioning; `_db` and `_ssim` are over all pixels.

    Args:
        network: the denoiser.
        vae: its autoencoder.
        scenes: indices in the split; a scene's index seeds its noise.
        split: of the scenes.
        guider: guidance of every sample.
        steps: of the schedule.
        sheets: a folder for one picture per scene: truth to the left, sample to the right.
    """
    rows: list[Row] = []
    device = next(vae.parameters()).device
    for index in scenes:
        scene = render_scene(index, split)
        rebuilt = vae.decode(vae.encode(scene.images.to(device))).cpu()
        sample = sample_scene(network, vae, scene, guider, steps, seed=index)
        predictions = {"nano": sample, "autoencoder": rebuilt}
        predictions |= trivial_predictions(scene.images[0], scene.images[:, 0])
        unseen = scene.mask.clone()
        unseen[0] = 0
        unseen[:, 0] = 0
        row: Row = {"scene": index, "object_share": round(scene.coverage, 4)}
        for name, images in predictions.items():
            row[f"{name}_mask_db"] = round(psnr(images, scene.images, scene.mask), 3)
            row[f"{name}_unseen_db"] = round(psnr(images, scene.images, unseen), 3)
            row[f"{name}_db"] = round(psnr(images, scene.images), 3)
            row[f"{name}_ssim"] = round(ssim(images, scene.images), 4)
        rows.append(row)
        print(f"evaluate: {split} {index}: {row['nano_mask_db']:.2f} dB in the mask", flush=True)
        if sheets is not None:
            sheets.mkdir(parents=True, exist_ok=True)
            both = torch.cat([scene.images, sample], 1)
            title = f"{split} scene {index}: truth, then sample"
            write_sheet(sheets / f"{split}_{index:03d}.png", both, title)
    return rows


def summarise(rows: list[Row]) -> dict[str, object]:
    """Means over scenes, the best trivial predictor, and nano's margin over it in dB."""
    means = {
        key: round(statistics.fmean(row[key] for row in rows), 3)
        for key in rows[0]
        if key not in ("scene", "object_share")
    }
    names = [key.removesuffix("_mask_db") for key in means if key.endswith("_mask_db")]
    trivial = [name for name in names if name not in _NO_TRIVIAL]
    best = max(trivial, key=lambda name: means[f"{name}_mask_db"])
    unseen = max(means[f"{name}_unseen_db"] for name in trivial)
    margins = [
        row["nano_mask_db"] - max(row[f"{name}_mask_db"] for name in trivial) for row in rows
    ]
    return {
        "means": means,
        "best_trivial": best,
        "margin_db": round(means["nano_mask_db"] - means[f"{best}_mask_db"], 2),
        "margin_unseen_db": round(means["nano_unseen_db"] - unseen, 2),
        "margin_to_best_of_each_scene_db": round(statistics.fmean(margins), 2),
        "smallest_margin_of_a_scene_db": round(min(margins), 2),
        "object_share_min": min(row["object_share"] for row in rows),
        "object_share_mean": round(statistics.fmean(row["object_share"] for row in rows), 4),
    }


def evaluate_nano(args: argparse.Namespace) -> None:
    """Evaluates exported weights; on held-out scenes the figures go beside them."""
    network, vae = load_nano(args.weights)
    low, high = args.guidance
    rows = evaluate(
        network.to(args.device),
        vae.to(args.device),
        range(args.held_out),
        args.split,
        SpatiotemporalPredictionGuider(high, low),
        args.steps,
        args.run / "sheets",
    )
    figures = {
        "weights_sha256": checkpoint_sha256(args.weights),
        "split": args.split,
        "scenes": len(rows),
        "steps": args.steps,
        "guidance": [low, high],
        **summarise(rows),
        "rows": rows,
    }
    beside = args.weights.with_suffix(".json")
    to = beside if args.split == "held_out" else args.run / f"{args.split}.json"
    part = to.with_suffix(".part")
    part.write_text(json.dumps(figures, indent=1) + "\n")
    part.rename(to)
    print(json.dumps({k: v for k, v in figures.items() if k != "rows"}, indent=1), flush=True)
