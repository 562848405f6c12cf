"""Stage `card` of train_nano.py: the model card and the loss curve, from logs and figures."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import torch
from turbo4d.models.checkpoint import checkpoint_sha256
from turbo4d.models.config import SV4DConfig
from turbo4d.models.nano import WEIGHTS
from turbo4d.models.unet import SV4DUNet
from turbo4d.models.vae import NanoVAE

_ROWS = {
    "nano": "**nano**, {steps} Euler steps, SV4D guider {low:g} to {high:g}",
    "autoencoder": "ceiling: the truth, encoded and decoded",
    "white": "white",
    "mean_colour": "mean colour of the object",
    "mean_conditioning": "mean of the conditioning images",
    "same_frame": "view 0 at the same frame",
    "same_view": "the same view at frame 0",
    "nearest": "nearest conditioning image (cameras + frames)",
}


def write_card(work: Path, run: Path, weights: Path) -> None:
    """Writes `README.md` and `loss.png` beside the weights and their figures.

    Args:
        work: holds the data and the autoencoder's logs.
        run: holds the UNet's log and checkpoint, and its arguments in `training.json`.
        weights: the file that `export` wrote.

    Raises:
        SystemExit: the figures are of other weights.
    """
    figures = json.loads(weights.with_suffix(".json").read_text())
    if figures["weights_sha256"] != checkpoint_sha256(weights):
        raise SystemExit("card: the figures are of other weights; run the stage 'evaluate' first.")
    log = [json.loads(line) for line in (run / "unet.jsonl").read_text().splitlines()]
    facts = _facts(work, run)
    facts["bytes"] = weights.stat().st_size
    _draw_curve(log, weights.with_name("loss.png"))
    card = weights.with_name("README.md")
    part = card.with_suffix(".part")
    part.write_text(_text(figures, facts))
    part.rename(card)


def cpu_name() -> str:
    """The processor as the system names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _facts(work: Path, run: Path) -> dict[str, Any]:
    """What the logs say of a training: its arguments, cores, scenes and the autoencoder's time."""
    facts = json.loads((run / "training.json").read_text())
    state = torch.load(run / "unet.pt", map_location="cpu", weights_only=True)
    facts |= {"steps": state["step"], "unet_s": state["spent"]}
    facts["scenes"] = 100 * len(list((work / "latents").glob("train_????.npy")))
    for name in ("vae", "decoder"):
        path = work / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        starts_anew = [row["step"] == 0 for row in rows[1:]] + [True]
        facts[f"{name}_s"] = sum(
            row["s"] for row, last in zip(rows, starts_anew, strict=True) if last
        )
    return facts


def _draw_curve(log: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 3.6), layout="constrained")
    steps = [row["step"] for row in log]
    for level in ("200", "20", "2", "0.2"):
        axes.plot(steps, [row[f"val_{level}"] for row in log], label=f"sigma {level}")
    axes.set(yscale="log", xlabel="step", ylabel="v-loss, average weights")
    axes.set_title("nano SV4D: loss on 8 validation scenes", fontsize=10)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _decibels(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"


def _table(figures: dict[str, Any]) -> str:
    low, high = figures["guidance"]
    lines = [
        "| prediction | PSNR in the object, dB | of unseen images only | PSNR, dB | SSIM |",
        "|---|---|---|---|---|",
    ]
    means = figures["means"]
    for name, title in _ROWS.items():
        title = title.format(steps=figures["steps"], low=low, high=high)
        inside, over, likeness = (means[f"{name}_{key}"] for key in ("mask_db", "db", "ssim"))
        unseen = _decibels(means.get(f"{name}_unseen_db"))
        lines.append(f"| {title} | {inside:.2f} | {unseen} | {over:.2f} | {likeness:.3f} |")
    return "\n".join(lines)


def _text(figures: dict[str, Any], run: dict[str, Any]) -> str:
    network = SV4DUNet(SV4DConfig.named("nano"), device="meta")
    unet = sum(p.numel() for p in network.parameters())
    vae = sum(p.numel() for p in NanoVAE().parameters())
    size = run["bytes"] / 2**20
    return f"""# nano SV4D, version 1

`{WEIGHTS}`, {size:.1f} MiB, float16, sha256 `{figures["weights_sha256"]}`.
Frozen: every result names this hash. Written by `tools/training/train_nano.py`; not by hand.

## What it is

A network of the SV4D family, {unet / 1e6:.2f} M parameters against SV4D's 1,997 M: the same code,
the same S-C-M module, the same conditioning roles, the same v-scaling, sigma 700 to 0.002.
4 views x 5 frames of 64 x 64 pixels, latents 16 x 16 x 4 of its own autoencoder ({vae / 1e6:.2f} M
parameters). `turbo4d.models.nano.load_nano()` loads both in float32.

## Figures

Means over {figures["scenes"]} held-out scenes. The object covers {figures["object_share_mean"]:.1%}
of the pixels, in no scene less than {figures["object_share_min"]:.1%}.

{_table(figures)}

Inside the object nano is **{figures["margin_db"]:.2f} dB** above the best trivial predictor
(`{figures["best_trivial"]}`). Above the best one of each scene it is
{figures["margin_to_best_of_each_scene_db"]:.2f} dB on average and
{figures["smallest_margin_of_a_scene_db"]:.2f} dB at least. In dB above it in the 12 of 20
images that are not among the conditioning: {_decibels(figures.get("margin_unseen_db"))}.
Scene by scene: `{Path(WEIGHTS).with_suffix(".json").name}`.

## Training

- Data: scenes 0 to {run["scenes"] - 1} of the split `train` of `models/scenes.py`, an articulated
  creature. Choices were made on `validation`; the splits' seed spaces are disjoint by construction.
- Seed {run["seed"]}, {run["steps"]} steps in {run["unet_s"] / 60:.0f} minutes.
  {run["world"]} processes of one thread take a step with one scene each; their weights are
  averaged every 4 steps.
  Conditioning is dropped for 10 % of the scenes.
- Muon for hidden matrices, AdamW for the rest; learning rate flat, then linear to 1 % over the
  second half; average weights with decay 0.998; bfloat16 autocast.
- Autoencoder: L1 + 4 MSE, {run["vae_s"] / 60:.0f} minutes, then its decoder alone for
  {run["decoder_s"] / 60:.0f} minutes.
- Machine: {cpu_name()}, {run["cores"]} cores, no GPU, shared with other work.
  Torch {torch.__version__}.
- The budget is wall-clock time, so training again gives a network as good, not the same bits.

![loss](loss.png)

## Limits

It knows one kind of object, four cameras at fixed angles and five frames of a cyclic motion.
It is here to measure acceleration on a trained network of the real kind, not to make assets.
"""
