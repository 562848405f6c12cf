"""Sampling a long 4D asset pass by pass, each pass conditioned on what is there already."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .branches import Branches
from .errors import ConditioningError
from .guiders import Guider
from .recipes import Pass, Recipe
from .sampler import (
    Denoiser,
    Model,
    OnStep,
    guided_denoiser,
    sample_euler,
    sequential_denoiser,
)
from .schedule import edm_sigmas

Latents = Mapping[int, Tensor]
Condition = Callable[[Pass, str, Latents], Branches]
BeforeStreamStep = Callable[[int, Tensor, str], object]
Solver = Callable[..., Tensor]


def sample_pass(
    model: Model,
    run: Pass,
    conditioning: Mapping[str, Branches],
    noise: Tensor,
    sigmas: Tensor,
    guider: Guider,
    *,
    sequential: bool = False,
    every_branch: bool = True,
    solver: Solver = sample_euler,
    before_step: BeforeStreamStep | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Sample one pass; its directions take turns at one shared latent, which is kept forward.

    Args:
        model: called as `SV4DUNet.forward`.
        run: the pass.
        conditioning: direction -> its conditioning; "backward" holds its frames reversed.
        noise: standard normal [F*V, 4, h, w] in forward order (f v).
        sigmas: noise levels [steps + 1].
        guider: guidance scales by place in the batch that the model sees, reversed or not.
        sequential: whether the model is called for each guidance branch by itself; its streams are
            then `<pass>.<direction>.uncond` and `.cond`.
        every_branch: whether steps without guidance compute the unconditional branch too. Without
            it, where only some steps are guided, call each branch by itself: state that is kept
            from step to step is of one branch or of both.
        solver: `sample_euler` or `sample_dpmpp_2m`.
        before_step: called as `before_step(i, sigma, stream)` before each prediction.
        on_step: called as `on_step(i, x, denoised)` after each update, in forward order.

    Returns:
        Tensor [F*V, 4, h, w] in forward order.
    """
    sigmas = sigmas.to(noise)

    def bound(direction: str) -> Denoiser:
        held, stream = conditioning[direction], run.stream(direction)
        if not sequential:
            return guided_denoiser(model, held, guider, sigmas, every_branch=every_branch)
        return sequential_denoiser(
            model,
            held,
            guider,
            sigmas,
            lambda i, branch: announce(i, f"{stream}.{branch}"),
            every_branch=every_branch,
        )

    def announce(i: int, stream: str) -> None:
        if before_step is not None:
            before_step(i, sigmas[i], stream)

    denoisers = {direction: bound(direction) for direction in run.view_frames}

    def predict(x: Tensor, i: int) -> Tensor:
        direction = run.direction(i)
        if not sequential:
            announce(i, run.stream(direction))
        if direction == "forward":
            return denoisers[direction](x, i)
        frames = len(run.frames)
        return _reverse(denoisers[direction](_reverse(x, frames), i), frames)

    return solver(predict, noise, sigmas, on_step=on_step)


def sv4d_sample(
    model: Model,
    recipe: Recipe,
    conditioning: Mapping[str, Branches] | Condition,
    noise: Mapping[str, Tensor],
    sigmas: Tensor | None = None,
    *,
    sequential: bool = False,
    solver: Solver = sample_euler,
    before_step: BeforeStreamStep | None = None,
) -> Tensor:
    """Sample every pass of a recipe; where passes overlap, the later one's frames stay.

    Args:
        model: called as `SV4DUNet.forward`.
        recipe: one of `RECIPES`.
        conditioning: by stream name, as `load_conditioning` reads it; or a function of the pass,
            the direction and the latents so far (frame -> [V, 4, h, w]), since a released model
            is conditioned on the decoded views of `run.view_frames[direction]`.
        noise: pass name -> [F*V, 4, h, w], from `draw_noise`; its dtype and device are the run's.
        sigmas: noise levels; None for the recipe's own schedule.
        sequential: as of `sample_pass`.
        solver: `sample_euler` or `sample_dpmpp_2m`.
        before_step: called as `before_step(i, sigma, stream)` before each prediction.

    Returns:
        Latents [frames, V, 4, h, w], unscaled, in frame order.

    Raises:
        ConditioningError: a stream's conditioning is missing or of another size.
    """
    condition = _by_stream(conditioning) if isinstance(conditioning, Mapping) else conditioning
    latents: dict[int, Tensor] = {}
    for run in recipe.passes:
        streams = {d: condition(run, d, latents) for d in run.view_frames}
        for direction, held in streams.items():
            _check_size(run.stream(direction), held, len(run.frames), recipe.views)
        start = noise[run.name]
        levels = edm_sigmas(recipe.steps, dtype=start.dtype) if sigmas is None else sigmas
        sample = sample_pass(
            model, run, streams, start, levels, recipe.guider,
            sequential=sequential, solver=solver, before_step=before_step,
        )  # fmt: skip
        grid = sample.unflatten(0, (len(run.frames), recipe.views))
        latents.update(zip(run.frames, grid, strict=True))
    return torch.stack([latents[frame] for frame in sorted(latents)])


def _reverse(x: Tensor, frames: int) -> Tensor:
    return x.unflatten(0, (frames, -1)).flip(0).flatten(0, 1)


def _by_stream(table: Mapping[str, Branches]) -> Condition:
    def condition(run: Pass, direction: str, latents: Latents) -> Branches:
        stream = run.stream(direction)
        if stream not in table:
            held = ", ".join(repr(name) for name in sorted(table)) or "none"
            raise ConditioningError(f"no conditioning for stream {stream!r}; there is {held}.")
        return table[stream]

    return condition


def _check_size(stream: str, held: Branches, frames: int, views: int) -> None:
    if (held.frames, held.views) != (frames, views):
        raise ConditioningError(
            f"conditioning of stream {stream!r} is for {held.frames} frames x {held.views} views; "
            f"the pass has {frames} x {views}."
        )
