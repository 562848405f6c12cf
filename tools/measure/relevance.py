"""Measures what the relevance of tokens is worth, on nano with its trained weights.

Two questions, on held-out scenes, over the steps of an uncached sample:

- Do the column sums of a few sampled queries rank the tokens as those of the whole map do?
  Spearman's rank correlation, per image, over all spatial attentions and steps.
- Are the tokens that get attention those whose residual changes from a step to the next? The share
  of the squared change that the first half and quarter of the tokens cover, by attention, by the
  size of the residual, by how much it changed the step before, and by what it will in fact change.
  As many tokens at random cover a half and a quarter.

Example:
    python tools/measure/relevance.py --scenes 0-1 --out tools/results/relevance-nano-v1.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from turbo4d.models.scm import SCMModule
from turbo4d.passes.record_relevance import sample_step
from turbo4d.tools.asset import image_size, prepare
from turbo4d.tools.environment import commit, device_name
from turbo4d.tools.load_model import LoadedModel, load_model
from turbo4d.tools.options import scene_numbers
from turbo4d.tools.sampling import sample_plain
from turbo4d.tools.scene_input import held_out_scene

QUERIES = (8, 16, 32, 64)
SHARES = (0.5, 0.25)
KINDS = ("spatial", "camera", "motion")


class Watch:
    """What one S-C-M module shows while the network is sampled.

    Args:
        module: whose blocks are watched.
        frames: of a call.
        views: of a call.

    Attributes:
        correlations: per number of queries, Spearman's of each image at each step.
        covered: per kind and share, what the tokens that each rule puts first cover.
    """

    def __init__(self, module: SCMModule, frames: int, views: int) -> None:
        self.blocks: dict[str, nn.Module] = {
            "spatial": module.transformer_blocks[0],
            "camera": module.time_mix_blocks[0],
            "motion": module.motion_blocks[0],
        }
        self.sizes = frames, views
        self.correlations: dict[int, list[float]] = {queries: [] for queries in QUERIES}
        self.covered: dict[tuple[str, float], list[dict[str, float]]] = {
            (kind, share): [] for kind in KINDS for share in SHARES
        }
        self._relevance: Tensor | None = None
        self._before: dict[str, tuple[Tensor, dict[str, Tensor]]] = {}

    def saw(self, kind: str, entry: Tensor, exit: Tensor) -> None:
        """Take in one run of a block."""
        frames, views = self.sizes
        if kind == "spatial":
            self._relevance = self._ranked(entry)
        if self._relevance is None:
            return
        residual = (exit - entry).float()
        tokens = self._relevance.shape[-1]
        grid = self._relevance.view(-1, frames, views, tokens)
        if kind == "camera":
            relevance = grid.mean(2).reshape(-1, tokens)
            residual = residual.unflatten(0, (-1, tokens)).flatten(2)
        elif kind == "motion":
            relevance = grid.mean(1).reshape(-1, tokens)
            residual = residual.unflatten(0, (-1, tokens)).flatten(2)
        else:
            relevance = self._relevance
        # A step that prunes follows what the step that computed could know.
        rules = {"attention": relevance, "residual": residual.square().sum(-1)}
        if kind in self._before:
            old, known = self._before[kind]
            rules["change"] = (residual - old).square().sum(-1)
            if "change" in known:
                self._cover(kind, rules["change"], {**known, "best": rules["change"]})
        self._before[kind] = residual, rules

    def _ranked(self, entry: Tensor) -> Tensor:
        block: Any = self.blocks["spatial"]
        attend = block.attn1
        normed = block.norm1(entry)
        query, key = (attend._split(part(normed)) for part in (attend.to_q, attend.to_k))
        weights = (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1, torch.float32)
        whole = weights.sum((1, 2))
        tokens = whole.shape[-1]
        for queries, found in self.correlations.items():
            if queries < tokens:
                sampled = weights[:, :, :: sample_step(tokens, queries)].sum((1, 2))
                found += _spearman(whole, sampled).tolist()
        return weights[:, :, :: sample_step(tokens, 64)].sum((1, 2)) if tokens > 64 else whole

    def _cover(self, kind: str, change: Tensor, rules: Mapping[str, Tensor]) -> None:
        for share in SHARES:
            count, total = round(share * change.shape[-1]), change.sum(-1)
            found = {
                rule: float((change.gather(-1, by.topk(count).indices).sum(-1) / total).mean())
                for rule, by in rules.items()
            }
            self.covered[kind, share].append(found)


def _spearman(one: Tensor, other: Tensor) -> Tensor:
    ranks = [part.argsort(-1).argsort(-1).double() for part in (one, other)]
    first, second = (rank - rank.mean(-1, keepdim=True) for rank in ranks)
    return (first * second).sum(-1) / (first.norm(dim=-1) * second.norm(dim=-1))


@contextmanager
def watching(model: LoadedModel) -> Iterator[list[Watch]]:
    """Every S-C-M module of a network, watched."""
    config = model.config
    found: list[Watch] = []
    handles: list[Any] = []
    for module in model.network.modules():
        if isinstance(module, SCMModule):
            watch = Watch(module, config.frames or 1, config.views or 1)
            found.append(watch)
            for kind, block in watch.blocks.items():

                def saw(
                    _: nn.Module, args: Any, exit: Tensor, kind: str = kind, watch: Watch = watch
                ) -> None:
                    watch.saw(kind, args[0], exit)

                handles.append(block.register_forward_hook(saw))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def measure(model: LoadedModel, scenes: Sequence[int], steps: int) -> dict[str, Any]:
    """Correlations and coverage over some scenes."""
    config = model.config
    shape = (config.views or 1, config.frames or 1, image_size(model))
    correlations: dict[int, list[float]] = {queries: [] for queries in QUERIES}
    covered: dict[tuple[str, float], list[dict[str, float]]] = {}
    for scene in scenes:
        asset = prepare(model, held_out_scene(scene, *shape), seed=0)
        with watching(model) as watches:
            sample_plain(model, asset, steps)
        for watch in watches:
            for queries, values in watch.correlations.items():
                correlations[queries] += values
            for case, found in watch.covered.items():
                covered.setdefault(case, []).extend(found)
    return {
        "spearman": [
            {
                "queries": queries,
                "images": len(values),
                "median": statistics.median(values),
                "tenth": statistics.quantiles(values, n=10)[0],
                "least": min(values),
            }
            for queries, values in correlations.items()
            if values
        ],
        "covered": [
            {
                "kind": kind,
                "kept": share,
                **{rule: statistics.fmean(one[rule] for one in found) for rule in found[0]},
            }
            for (kind, share), found in covered.items()
        ],
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=scene_numbers, default=(0, 1))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    device = torch.device("cpu")
    model = load_model("nano", None, torch.float32, device)
    found = {
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        "scenes": list(args.scenes),
        "steps": args.steps,
        "device": device_name(device),
        "torch": torch.__version__,
        "commit": commit(),
        **measure(model, args.scenes, args.steps),
    }
    for row in found["spearman"]:
        print(
            f"{row['queries']:3} queries: Spearman {row['median']:.3f} in the median of "
            f"{row['images']} images, "
            f"{row['tenth']:.3f} at the tenth part, least {row['least']:.3f}"
        )
    for row in found["covered"]:
        print(
            f"{row['kind']:8} {row['kept']:.0%} of the tokens cover {row['attention']:.1%} of the "
            f"change by attention, {row['residual']:.1%} by the residual's size, "
            f"{row['change']:.1%} by its last change, {row['best']:.1%} at best"
        )
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
