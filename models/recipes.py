"""The order in which SV4D and SV4D 2.0 sample a long 4D asset: passes, their frames, their streams.

A pass is one sampling run over F frames x V views. SV4D first samples anchor frames, then fills in
between them by dense passes that alternate two streams at every step: `backward`, with the frames
reversed and conditioned on the views of the last frame, and `forward`. SV4D 2.0 samples chunk after
chunk. A stream is named `<pass>.<direction>`, for instance `dense0.backward`.

Source: scripts/sampling/simple_video_sample_{4d,4d2}.py of Stability's generative-models,
commit 0ad7de9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .guiders import Guider, LinearPredictionGuider, SpatiotemporalPredictionGuider


@dataclass(frozen=True)
class Pass:
    """One sampling run.

    Args:
        name: unique in its recipe.
        frames: indices of the frames sampled, in forward order.
        view_frames: direction -> the frame whose views are the run's `cond_view`, None where
            there is none and `cond_view` is zero. Step i runs direction i modulo their number.
    """

    name: str
    frames: tuple[int, ...]
    view_frames: Mapping[str, int | None]

    def direction(self, i: int) -> str:
        """The direction of step i: "forward" or "backward"."""
        directions = tuple(self.view_frames)
        return directions[i % len(directions)]

    def stream(self, direction: str) -> str:
        """Name of the stream of one direction of this pass."""
        return f"{self.name}.{direction}"


@dataclass(frozen=True)
class Recipe:
    """How one released model samples: its passes, their size, the number of steps, the guidance."""

    passes: tuple[Pass, ...]
    views: int
    steps: int
    guider: Guider

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of all streams, in the order of their first step."""
        return tuple(p.stream(d) for p in self.passes for d in p.view_frames)


def sv4d_passes(total: int = 21, frames: int = 5) -> tuple[Pass, ...]:
    """SV4D's anchor pass, then its dense passes, over `total` frames, `frames` per pass.

    Raises:
        ValueError: the anchors, every (frames - 1)-th frame, do not fill exactly one pass.
    """
    stride = frames - 1
    if total != frames * stride + 1:
        raise ValueError(
            f"SV4D with {frames} frames per pass samples {frames * stride + 1} frames, not {total}."
        )
    anchor = Pass("anchor", tuple(range(stride, total, stride)), {"forward": 0})
    dense = (
        Pass(
            f"dense{k}",
            tuple(range(start, start + frames)),
            {"backward": start + stride, "forward": start},
        )
        for k, start in enumerate(range(0, total - 1, stride))
    )
    return (anchor, *dense)


def sv4d2_passes(total: int = 21, frames: int = 12, overlap: int = 0) -> tuple[Pass, ...]:
    """SV4D 2.0's chunks: the first sees no generated views, a later one those of its first frame.

    Args:
        total: frames to sample.
        frames: frames per chunk. The last chunk is moved back to end at the last frame.
        overlap: frames that a chunk shares with the one before; 1 for the 8-view model.

    Raises:
        ValueError: there are fewer frames than a chunk holds.
    """
    if total < frames:
        raise ValueError(f"SV4D 2.0 samples {frames} frames per chunk; {total} are too few.")
    starts = [min(s, total - frames) for s in range(0, total - overlap, frames - overlap)]
    return tuple(
        Pass(f"chunk{k}", tuple(range(s, s + frames)), {"forward": s if k else None})
        for k, s in enumerate(starts)
    )


RECIPES: Mapping[str, Recipe] = {
    "sv4d": Recipe(sv4d_passes(), 8, 20, SpatiotemporalPredictionGuider(2.0, 1.0)),
    "sv4d2": Recipe(sv4d2_passes(), 4, 50, LinearPredictionGuider(2.0, 1.0)),
    "sv4d2_8views": Recipe(
        sv4d2_passes(frames=5, overlap=1), 8, 50, SpatiotemporalPredictionGuider(2.5, 1.5)
    ),
}


def draw_noise(recipe: Recipe, height: int, width: int, seed: int) -> dict[str, Tensor]:
    """Standard normal noise for every pass, by its name: float32 [F*V, 4, height, width], CPU."""
    generator = torch.Generator().manual_seed(seed)
    return {
        p.name: torch.randn(len(p.frames) * recipe.views, 4, height, width, generator=generator)
        for p in recipe.passes
    }
