"""The smallest denoiser under a sampler of five steps, learned once for the tests that read it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from turbo4d.compiler.calibrate.harness import Harness

from tests.compiler.two_chains import FRAMES, SIDE, VIEWS, TwoChains

LEVELS = (1.2, 0.9, 0.4, -0.2, -0.8)  # c_noise
IMAGES = VIEWS * FRAMES
Example = tuple[Tensor, Tensor]  # noise and label


def network() -> TwoChains:
    torch.manual_seed(0)
    return TwoChains().eval().requires_grad_(False)


def example(seed: int, images: int = IMAGES) -> Example:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images, 4, SIDE, SIDE, generator=generator)
    return noise, torch.randn(images, 8, generator=generator)


def sampler(denoiser: Callable[..., Tensor], given: Example) -> Tensor:
    x, label = given
    for level in LEVELS:
        x = x + 0.5 * denoiser(x, torch.full((len(x),), level), label=label)
    return x


def two_streams(denoiser: Callable[..., Tensor], given: Example) -> Tensor:
    """Two branches at even steps, one at odd ones."""
    x, label = given
    for step, level in enumerate(LEVELS):
        levels = torch.full((len(x),), level)
        denoiser.step(step, stream="cond")  # pyright: ignore[reportFunctionMemberAccess]
        x = x + 0.5 * denoiser(x, levels, label=label)
        if step % 2 == 0:
            denoiser.step(step, stream="uncond")  # pyright: ignore[reportFunctionMemberAccess]
            x = x - 0.1 * denoiser(x, levels, label=0 * label)
    return x


@cache
def learned() -> tuple[Harness, Example]:
    torch._dynamo.reset()
    given = example(0)
    harness = Harness(network(), sampler)
    harness.learn(given)
    return harness, given
