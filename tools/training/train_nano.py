"""Trains the nano SV4D and writes its weights, figures and card; also runs on CUDA.

Stages, in order: `render` scenes, train the `vae`, encode `latents`, train the `unet`, train the
`decoder` on, `export` the weights, `evaluate` them on held-out scenes, write the `card`. `all` runs
them one after another. Each stage leaves files under --work and skips or goes on from what is
there, so a run that was cut off is started again with the same command and --resume.

Example:
    python tools/training/train_nano.py all --seconds 5200 --world 2
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import torch
from turbo4d.models.nano import weights_path
from turbo4d.tools.training.card import write_card
from turbo4d.tools.training.data import encode_chunks, render_chunks
from turbo4d.tools.training.evaluate import evaluate_nano
from turbo4d.tools.training.export import export
from turbo4d.tools.training.unet import train_unet
from turbo4d.tools.training.vae import train_vae, tune_decoder

_VALIDATION = 100  # scenes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("stage", choices=("all", *_STAGES))
    add("--work", type=Path, default=Path(".work/nano"), help="folder of the data sets")
    add("--run", type=Path, default=Path(".work/run"), help="folder of the UNet's training")
    add("--weights", type=Path, default=weights_path(), help="file to write; card beside it")
    add("--force", action="store_true", help="replace weights that are there")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--world", type=int, default=1, help="processes: one per core on a CPU, 1 on a GPU")
    add("--seed", type=int, default=0)
    add("--scenes", type=int, default=4200, help="training scenes to render")
    add("--vae-seconds", type=float, default=480.0)
    add("--vae-chunks", type=int, default=10, help="files of 100 scenes the autoencoder sees")
    add("--decoder-seconds", type=float, default=600.0)
    add("--decoder-noise", type=float, default=0.1, help="on standardised latents")
    add("--seconds", type=float, default=5200.0, help="budget of the UNet's training")
    add("--batch", type=int, default=1, help="scenes a step and process")
    add("--sync", type=int, default=4, help="steps between averages of the processes' weights")
    add("--lr", type=float, default=1e-3, help="of Adam")
    add("--lr-muon", type=float, default=5e-3)
    add("--ema", type=float, default=0.998)
    add("--check-every", type=int, default=100, help="steps between validation losses")
    add("--save-every", type=float, default=240.0, help="seconds between checkpoints")
    add("--port", type=int, default=29511, help="where the processes meet")
    add("--resume", action="store_true", help="go on from the UNet's checkpoint")
    add("--held-out", type=int, default=32, help="scenes to evaluate on")
    add("--split", default="held_out", choices=("held_out", "validation"))
    add("--steps", type=int, default=20)
    add("--guidance", type=float, nargs=2, default=(1.0, 2.0), metavar=("MIN", "MAX"))
    return parser


def _workers(work: Callable[[int, int], None], args: argparse.Namespace) -> None:
    context = torch.multiprocessing.get_context("spawn")
    children = [context.Process(target=work, args=(w, args.world)) for w in range(args.world)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        if child.exitcode:
            raise SystemExit(f"train_nano: a worker failed with exit status {child.exitcode}.")


class _Render:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args

    def __call__(self, worker: int, workers: int) -> None:
        torch.set_num_threads(1)
        render_chunks(self.args.work, "validation", _VALIDATION, worker, workers)
        render_chunks(self.args.work, "train", self.args.scenes, worker, workers)


class _Encode(_Render):
    def __call__(self, worker: int, workers: int) -> None:
        torch.set_num_threads(1)
        for split in ("validation", "train"):
            encode_chunks(self.args.work, split, self.args.device, worker, workers)


_STAGES: dict[str, Callable[[argparse.Namespace], None]] = {
    "render": lambda a: _workers(_Render(a), a),
    "vae": lambda a: train_vae(a.work, a.vae_seconds, a.vae_chunks, a.device, seed=a.seed),
    "latents": lambda a: _workers(_Encode(a), a),
    "unet": train_unet,
    "decoder": lambda a: tune_decoder(
        a.work, a.decoder_seconds, a.vae_chunks, a.device, noise=a.decoder_noise
    ),
    "export": lambda a: export(a.work, a.run, a.weights, a.force),
    "evaluate": evaluate_nano,
    "card": lambda a: write_card(a.work, a.run, a.weights),
}


def main() -> None:
    """Runs one stage, or all of them."""
    args = _parser().parse_args()
    if args.device == "cpu":
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
    for name in _STAGES if args.stage == "all" else (args.stage,):
        print(f"train_nano: {name}", flush=True)
        _STAGES[name](args)


if __name__ == "__main__":
    main()
