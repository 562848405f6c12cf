"""Stage `unet` of train_nano.py: trains the nano SV4D on latents for a wall-clock budget.

On a CPU one single-threaded process runs per core; each steps alone, and their weights are averaged
every few steps (local SGD). Where cores are shared, processes then wait for each other rarely, and
not once per operation.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from turbo4d.models.config import SV4DConfig
from turbo4d.models.unet import SV4DUNet
from turbo4d.tools.training.attention import use_training_attention
from turbo4d.tools.training.batch import DROPOUT, FRAMES, VIEWS, draw_sigma, network_inputs
from turbo4d.tools.training.data import load_latents
from turbo4d.tools.training.muon import Muon

_BANDS = (0.2, 2.0, 10.0, 50.0)  # edges of the noise bands in the log
_LEVELS = (200.0, 20.0, 2.0, 0.2)  # noise levels of the validation loss
_CHECKED = 8  # validation scenes of that loss
# Single-key cross-attention: nothing depends on these, so they keep their initial values.
_DEAD = ("attn2.to_q", "attn2.to_k", ".norm2.")
# Embeddings, contexts and the outer convolutions stay with Adam.
_OUTER = ("_embed", "label_emb", "input_blocks.0.0", "out.2", "attn2.to_v")


class Trainer:
    """Model, optimisers and average weights of one rank.

    Args:
        args: the command line of tools/training/train_nano.py.
        rank: of this process.
        world: number of processes.
    """

    def __init__(self, args: argparse.Namespace, rank: int, world: int) -> None:
        self.args, self.rank, self.world = args, rank, world
        torch.manual_seed(args.seed)
        self.model = SV4DUNet(SV4DConfig.named("nano")).to(args.device)
        use_training_attention(self.model)
        self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        live = {
            name: p
            for name, p in self.model.named_parameters()
            if not any(part in name for part in _DEAD)
        }
        self.parameters = list(live.values())
        matrices = {
            name: p
            for name, p in live.items()
            if p.dim() >= 2 and not any(part in name for part in _OUTER)
        }
        others = [p for name, p in live.items() if name not in matrices]
        self.muon = Muon(list(matrices.values()))
        self.adam = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        self.generator = torch.Generator().manual_seed(args.seed * 1000 + rank)
        self.latents = load_latents(args.work, "train")
        self.step, self.spent = 0, 0.0

    def losses(self, target: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        """Mean squared error of the v-prediction, per scene [B]."""
        x, timesteps, context, y, cond_view = inputs
        with torch.autocast(self.args.device, torch.bfloat16):
            out = self.model(
                x,
                timesteps,
                context=context,
                y=y,
                cond_view=cond_view,
                num_video_frames=VIEWS * FRAMES,
            )
        return (out.float() - target).square().unflatten(0, (-1, VIEWS * FRAMES)).mean((1, 2, 3, 4))

    def train_step(self, done: float) -> tuple[Tensor, Tensor]:
        """One update at `done` in [0, 1] of the budget; per-scene losses and noise levels."""
        count, generator = self.args.batch, self.generator
        pick = torch.randint(len(self.latents), (count,), generator=generator)
        latents = self.latents[pick].float()
        sigma = draw_sigma(count, generator)
        noise = torch.randn(latents.transpose(1, 2).shape, generator=generator)
        drop = torch.rand(count, generator=generator) < DROPOUT
        batch = (item.to(self.args.device) for item in (latents, sigma, noise, drop))
        inputs, target = network_inputs(*batch)
        losses = self.losses(target, inputs)
        losses.mean().backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self._update(done)
        return losses.detach().cpu(), sigma

    def _update(self, done: float) -> None:
        warm = min(1.0, (self.step + 1) / 100)
        shape = warm * (0.01 + 0.99 * min(1.0, 2.0 * (1.0 - done)))  # flat, then down to 1 %
        self.adam.param_groups[0]["lr"] = self.args.lr * shape
        self.adam.step()
        self.muon.step(self.args.lr_muon * shape)
        for p in self.parameters:
            p.grad = None
        self.step += 1
        if self.world > 1 and self.step % self.args.sync == 0:
            self._average_ranks()
        decay = min(self.args.ema, (1 + self.step) / (10 + self.step))
        for average, p in zip(self.average.values(), self.model.parameters(), strict=True):
            average.lerp_(p.detach(), 1.0 - decay)

    @torch.no_grad()
    def _average_ranks(self) -> None:
        flat = torch.cat([p.flatten() for p in self.parameters])
        dist.all_reduce(flat)
        flat /= self.world
        sizes = [p.numel() for p in self.parameters]
        for p, part in zip(self.parameters, flat.split(sizes), strict=True):
            p.copy_(part.view_as(p))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss of the average weights on validation scenes, with the same noise every time."""
        latents = load_latents(self.args.work, "validation")[:_CHECKED].float()
        current = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.model.load_state_dict(self.average)
        result: dict[str, float] = {}
        for level in _LEVELS:
            total = torch.zeros(())
            for index in range(self.rank, _CHECKED, self.world):
                generator = torch.Generator().manual_seed(index)
                scene = latents[index : index + 1]
                noise = torch.randn(scene.transpose(1, 2).shape, generator=generator)
                batch = (scene, torch.tensor([level]), noise, torch.tensor([False]))
                inputs, target = network_inputs(*(item.to(self.args.device) for item in batch))
                total += self.losses(target, inputs).sum().cpu()
            if self.world > 1:
                dist.all_reduce(total)
            result[f"val_{level:g}"] = round(float(total) / _CHECKED, 4)
        self.model.load_state_dict(current)
        return result

    def save(self) -> None:
        """Writes `unet.pt`, whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "adam": self.adam.state_dict(),
            "muon": self.muon.state_dict(),
            "step": self.step,
            "spent": self.spent,
        }
        torch.save(state, self.args.run / "unet.part")
        (self.args.run / "unet.part").rename(self.args.run / "unet.pt")

    def resume(self) -> None:
        """Takes back `unet.pt`; the wall clock goes on from where it stood."""
        path = self.args.run / "unet.pt"
        state = torch.load(path, map_location=self.args.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.adam.load_state_dict(state["adam"])
        self.muon.load_state_dict(state["muon"])
        self.step, self.spent = state["step"], state["spent"]
        self.generator.manual_seed(self.args.seed * 1000 + self.rank + 7919 * self.step)


def train_unet(args: argparse.Namespace) -> None:
    """Trains with `args.world` processes; see tools/training/train_nano.py for the arguments."""
    args.run.mkdir(parents=True, exist_ok=True)
    facts = {"world": args.world, "seed": args.seed, "cores": os.cpu_count()}
    (args.run / "training.json").write_text(json.dumps(facts) + "\n")
    if args.world > 1:
        spawn(_rank, (args,), nprocs=args.world)
    else:
        _train(args, 0, 1)


def _rank(rank: int, args: argparse.Namespace) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(args.port), GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", rank=rank, world_size=args.world)
    _train(args, rank, args.world)
    dist.destroy_process_group()


def _train(args: argparse.Namespace, rank: int, world: int) -> None:
    if args.device == "cpu":
        torch.set_num_threads(1)
    trainer = Trainer(args, rank, world)
    if args.resume and (args.run / "unet.pt").exists():
        trainer.resume()
    last = saved = time.time()
    sums = torch.zeros(2, len(_BANDS) + 1)
    while (done := _elapsed(trainer)) < 1.0:
        losses, sigma = trainer.train_step(done)
        bands = torch.bucketize(sigma, torch.tensor(_BANDS))
        sums[0].index_add_(0, bands, losses)
        sums[1].index_add_(0, bands, torch.ones_like(losses))
        if trainer.step % args.check_every == 0:
            _report(trainer, sums)
        now = time.time()
        trainer.spent += now - last
        last = now
        if rank == 0 and now - saved > args.save_every:
            trainer.save()
            saved = now
    _report(trainer, sums)
    if rank == 0:
        trainer.save()


def _elapsed(trainer: Trainer) -> float:
    """Share of the budget that is spent; the ranks agree on it where their weights meet."""
    if trainer.world == 1:
        return trainer.spent / trainer.args.seconds
    if trainer.step % trainer.args.sync == 0:
        clock = torch.tensor(trainer.spent, dtype=torch.float64)
        dist.broadcast(clock, 0)
        trainer.spent = float(clock)
        return trainer.spent / trainer.args.seconds
    return min(trainer.spent / trainer.args.seconds, math.nextafter(1.0, 0.0))


def _report(trainer: Trainer, sums: Tensor) -> None:
    row: dict[str, object] = {"step": trainer.step, "s": round(trainer.spent)}
    row["band_loss"] = [
        round(total / count, 4) if count else None
        for total, count in zip(*sums.tolist(), strict=True)
    ]
    row |= trainer.validate()
    sums.zero_()
    if trainer.rank == 0:
        with (trainer.args.run / "unet.jsonl").open("a") as log:
            print(json.dumps(row), file=log)
        print("unet:", row, flush=True)
