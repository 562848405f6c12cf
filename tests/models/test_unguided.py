"""Steps whose guidance scale is exactly 1 need no unconditional branch, and none is computed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from turbo4d.models.branches import Branches
from turbo4d.models.guiders import (
    Guider,
    IntervalGuider,
    LinearPredictionGuider,
    RescaledGuider,
    SpatiotemporalPredictionGuider,
    VanillaCFG,
    step_scales,
)
from turbo4d.models.sampler import guided_denoiser, sample_euler, sequential_denoiser
from turbo4d.models.schedule import edm_sigmas

FRAMES, VIEWS, STEPS = 2, 3, 6
IMAGES = FRAMES * VIEWS
SIGMAS = edm_sigmas(STEPS, dtype=torch.float64)
MIDDLE = IntervalGuider(VanillaCFG(2.0), lowest=float(SIGMAS[4]), highest=float(SIGMAS[2]))
GUIDED = [False, False, True, True, True, False]


def branches() -> Branches:
    shapes = {
        "concat": (IMAGES, 4, 4, 4),
        "cond_motion": (FRAMES, 4, 4, 4),
        "cond_view": (VIEWS, 4, 4, 4),
        "crossattn": (1, FRAMES, 5),
        "vector": (IMAGES, 3),
    }
    generator = torch.Generator().manual_seed(0)

    def draw() -> dict[str, Tensor]:
        return {
            key: torch.randn(shape, generator=generator, dtype=torch.float64)
            for key, shape in shapes.items()
        }

    return Branches(draw(), draw(), FRAMES, VIEWS)


class Counted:
    """A denoiser that every conditioning tensor takes part in; counts the images of its calls."""

    def __init__(self) -> None:
        self.images: list[int] = []

    def __call__(self, x: Tensor, timesteps: Tensor, *, y: Tensor, **inputs: Tensor) -> Tensor:
        self.images.append(len(x))
        text = inputs["context"].mean((1, 2)).repeat_interleave(IMAGES)
        each = torch.tanh(timesteps + y.sum(1) + text).view(-1, 1, 1, 1)
        return x[:, :4].tanh() * each + 0.1 * x[:, 4:]


def sampled(model: Counted, guider: Guider, *, every_branch: bool) -> Tensor:
    denoiser = guided_denoiser(model, branches(), guider, SIGMAS, every_branch=every_branch)
    noise = torch.randn(
        IMAGES, 4, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    return sample_euler(denoiser, noise, SIGMAS)


@pytest.mark.parametrize(
    ("guider", "guided"),
    [
        (VanillaCFG(1.0), [False] * STEPS),
        (RescaledGuider(VanillaCFG(1.0), 0.7), [False] * STEPS),
        (MIDDLE, GUIDED),
        (RescaledGuider(MIDDLE, 0.7), GUIDED),
        (VanillaCFG(0.0), [True] * STEPS),
        (SpatiotemporalPredictionGuider(2.0), [True] * STEPS),  # 1 at the first image alone
    ],
)
def test_only_steps_without_guidance_lose_a_branch_and_nothing_else_changes(
    guider: Guider, guided: list[bool]
) -> None:
    whole, dropped = Counted(), Counted()
    wanted = sampled(whole, guider, every_branch=True)
    found = sampled(dropped, guider, every_branch=False)
    assert whole.images == [2 * IMAGES] * STEPS
    assert dropped.images == [2 * IMAGES if needed else IMAGES for needed in guided]
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    if all(guided):
        assert torch.equal(found, wanted)


def test_a_branch_that_is_not_computed_is_not_announced() -> None:
    told: list[tuple[int, str]] = []

    def announce(i: int, branch: str) -> None:
        told.append((i, branch))

    def run(before: Callable[[int, str], None] | None, *, every_branch: bool) -> Tensor:
        denoiser = sequential_denoiser(
            Counted(), branches(), MIDDLE, SIGMAS, before, every_branch=every_branch
        )
        return sample_euler(denoiser, torch.ones(IMAGES, 4, 4, 4, dtype=torch.float64), SIGMAS)

    found = run(announce, every_branch=False)
    assert [i for i, branch in told if branch == "uncond"] == [2, 3, 4]
    assert [i for i, branch in told if branch == "cond"] == [*range(STEPS)]
    torch.testing.assert_close(found, run(None, every_branch=True), rtol=1e-12, atol=1e-12)


def test_an_interval_scales_between_its_levels_and_is_1_outside() -> None:
    inner = LinearPredictionGuider(3.0)
    guider = IntervalGuider(inner, 1.0, 5.0)
    scales = step_scales(guider, FRAMES, VIEWS, torch.tensor([6.0, 5.0, 2.0, 1.0, 0.5]))
    assert [bool((scale != 1).any()) for scale in scales] == [False, True, True, True, False]
    assert torch.equal(scales[1], inner.scale(FRAMES, VIEWS))


def test_an_interval_of_rescaled_guidance_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^IntervalGuider got a RescaledGuider; wanted one"):
        IntervalGuider(RescaledGuider(VanillaCFG(2.0)), 1.0, 5.0)
