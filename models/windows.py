"""A long asset in windows of frames that overlap, all at each step: what they share is averaged.

Each window has its own conditioning, and is a stream of its own to whoever keeps state per step.

Source: Bar-Tal et al. 2023 (MultiDiffusion), equation 5, with equal weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .sampler import Denoiser

BeforeWindow = Callable[[int, int], object]


def frame_windows(total: int, frames: int, overlap: int) -> tuple[range, ...]:
    """Windows that cover all frames; the last is moved back to end at the last frame.

    Args:
        total: frames of the asset.
        frames: of a window.
        overlap: frames that a window shares with the one before.

    Raises:
        ValueError: there are fewer frames than a window holds, or windows do not advance.
    """
    if total < frames:
        raise ValueError(f"a window holds {frames} frames; {total} are too few.")
    if not 0 <= overlap < frames:
        raise ValueError(f"windows of {frames} frames cannot overlap by {overlap}.")
    starts = [
        min(start, total - frames) for start in range(0, max(total - overlap, 1), frames - overlap)
    ]
    return tuple(range(start, start + frames) for start in starts)


def windowed_denoiser(
    denoisers: Sequence[Denoiser],
    windows: Sequence[range],
    views: int,
    noise: Tensor,
    before_window: BeforeWindow | None = None,
) -> Denoiser:
    """One denoiser of the whole asset: each window predicts its frames, shared ones are averaged.

    Args:
        denoisers: of each window, such as `guided_denoiser` gives.
        windows: the frames of each; together all frames.
        views: V.
        noise: of the whole asset [T*V, C, h, w], image order (f v); its device and dtype are the
            run's.
        before_window: called as `before_window(i, k)` before window k predicts at step i.

    Returns:
        A function of the latent [T*V, C, h, w] and the step's index.

    Raises:
        ValueError: a frame is in no window, or there are more or fewer denoisers than windows.
    """
    if len(denoisers) != len(windows):
        raise ValueError(f"{len(windows)} windows have {len(denoisers)} denoisers.")
    counts = torch.zeros(noise.shape[0] // views)
    for window in windows:
        counts[window.start : window.stop] += 1
    if not counts.all():
        raise ValueError(f"frame {int(counts.argmin())} is in no window.")
    shares = counts.reciprocal().repeat_interleave(views).view(-1, 1, 1, 1).to(noise)

    def predict(x: Tensor, i: int) -> Tensor:
        found = torch.zeros_like(x)
        for k, (denoiser, window) in enumerate(zip(denoisers, windows, strict=True)):
            if before_window is not None:
                before_window(i, k)
            images = slice(window.start * views, window.stop * views)
            found[images] += denoiser(x[images], i)
        return found * shares

    return predict
