"""Deterministic samplers over a guided denoiser: Euler, and DPM-Solver++(2M) as the control.

Nothing inside a loop reads a value back from the device, and what depends only on the conditioning
or the schedule is computed before the loop. The latent keeps its own dtype throughout (float32
for a bfloat16 model); the model sees the dtype of its conditioning.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .branches import Branches
from .guiders import Guider, RescaledGuider, combine, rescale, step_scales
from .schedule import VScaling, v_scaling

Model = Callable[..., Tensor]
Denoiser = Callable[[Tensor, int], Tensor]
BeforeStep = Callable[[int, Tensor], object]
BeforeBranch = Callable[[int, str], object]
OnStep = Callable[[int, Tensor, Tensor], object]


@dataclass(frozen=True)
class _Guide:
    """Makes one prediction of two at a step.

    Args:
        needed: whether the unconditional one has a part in it.
        scale: of each image.
        share: of the excess contrast that is taken back, None for a guider that only scales.
    """

    needed: bool
    scale: Tensor
    share: float | None

    def __call__(self, uncond: Tensor, cond: Tensor) -> Tensor:
        guided = combine(uncond, cond, self.scale)
        return guided if self.share is None else rescale(guided, cond, self.share)


def guided_denoiser(
    model: Model,
    conditioning: Branches,
    guider: Guider,
    sigmas: Tensor,
    *,
    every_branch: bool = True,
) -> Denoiser:
    """Bind a model to its conditioning and schedule: `denoiser(x, i)` predicts at step i.

    Args:
        model: called as `SV4DUNet.forward`, once a step, on the unconditional branch and then the
            conditional.
        conditioning: both branches of one stream; its dtype is what the model is fed.
        guider: guidance scales over the frames x views grid.
        sigmas: noise levels [steps + 1], of the latent's dtype; moved to the conditioning's
            device. The trailing 0 is never evaluated.
        every_branch: whether a step whose scales are all exactly 1 computes the unconditional
            branch too, as samplers do; its prediction is the conditional one, but for rounding.
            Otherwise the model is called on the conditional branch alone there. One image of
            another scale needs the whole branch: the network computes all its images together.

    Returns:
        A function of the latent [F*V, 4, h, w] and the step's index.
    """
    joined, alone = conditioning.joined(), conditioning.apart()["cond"]
    sigmas = sigmas.to(joined["concat"].device)
    images = conditioning.frames * conditioning.views
    steps, halves = _scalings(sigmas, 2 * images), _scalings(sigmas, images)
    guides = _guides(guider, conditioning, sigmas)

    def predict(x: Tensor, i: int) -> Tensor:
        guide = guides[i]
        if guide.needed or every_branch:
            return guide(*_predict(model, x, steps[i], joined, branches=2))
        return _predict(model, x, halves[i], alone, branches=1)[0]

    return predict


def sequential_denoiser(
    model: Model,
    conditioning: Branches,
    guider: Guider,
    sigmas: Tensor,
    before_branch: BeforeBranch | None = None,
    *,
    every_branch: bool = True,
) -> Denoiser:
    """As `guided_denoiser`, with a call of the model for each branch: half the memory of one call.

    Args:
        model: called as `SV4DUNet.forward`, on one branch.
        conditioning: both branches of one stream; its dtype is what the model is fed.
        guider: guidance scales over the frames x views grid.
        sigmas: noise levels [steps + 1], of the latent's dtype.
        before_branch: called as `before_branch(i, branch)` before each call of the model, branch
            "uncond" and then "cond": each is a stream of its own to whoever keeps state.
        every_branch: as of `guided_denoiser`; a branch that is not computed is not announced.
    """
    apart = conditioning.apart()
    sigmas = sigmas.to(conditioning.c["concat"].device)
    steps = _scalings(sigmas, conditioning.frames * conditioning.views)
    guides = _guides(guider, conditioning, sigmas)

    def predict(x: Tensor, i: int) -> Tensor:
        guide, found = guides[i], dict[str, Tensor]()
        for branch, inputs in apart.items():
            if branch == "uncond" and not (guide.needed or every_branch):
                continue
            if before_branch is not None:
                before_branch(i, branch)
            (found[branch],) = _predict(model, x, steps[i], inputs, branches=1)
        if "uncond" not in found:
            return found["cond"]
        return guide(found["uncond"], found["cond"])

    return predict


def _predict(
    model: Model, x: Tensor, scaling: VScaling, inputs: dict[str, Tensor], branches: int
) -> list[Tensor]:
    """The clean latent as each branch of one call predicts it."""
    concat, images = inputs["concat"], x.shape[0]
    scaled = (x * scaling.c_in).to(concat.dtype)
    out = model(
        torch.cat([scaled.repeat(branches, 1, 1, 1), concat], dim=1),
        scaling.c_noise,
        context=inputs["crossattn"],
        y=inputs["vector"],
        num_video_frames=images,
        image_only_indicator=inputs["image_only_indicator"],
        cond_view=inputs["cond_view"],
        cond_motion=inputs["cond_motion"],
    )
    skip = x * scaling.c_skip
    return [part.to(x.dtype) * scaling.c_out + skip for part in out.chunk(branches)]


def _scalings(sigmas: Tensor, images: int) -> list[VScaling]:
    """Of each step, with a level for each image of a call."""
    table = v_scaling(sigmas[:-1])
    labels = table.c_noise[:, None].repeat(1, images)
    rows = zip(table.c_skip, table.c_out, table.c_in, labels, strict=True)
    return [VScaling(*row) for row in rows]


def _guides(guider: Guider, conditioning: Branches, sigmas: Tensor) -> list[_Guide]:
    """Of each step, with its scales on the device."""
    share = guider.share if isinstance(guider, RescaledGuider) else None
    scales = step_scales(guider, conditioning.frames, conditioning.views, sigmas[:-1])
    return [_Guide(bool((s != 1).any()), s.to(sigmas.device), share) for s in scales]


@torch.no_grad()
def sample_euler(
    denoiser: Denoiser,
    noise: Tensor,
    sigmas: Tensor,
    before_step: BeforeStep | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Integrate from noise to sample by Euler's method, without churn.

    Args:
        denoiser: prediction of the clean latent at step i, `denoiser(x, i)`.
        noise: standard normal [N, C, h, w]; scaled here by sqrt(1 + sigmas[0]**2). Its dtype is
            that of the whole run.
        sigmas: noise levels [steps + 1], noisiest first; moved to the noise's device and dtype.
        before_step: called as `before_step(i, sigma)` before each prediction; sigma is a 0-dim
            tensor on the device, so reading its value waits for the device.
        on_step: called as `on_step(i, x, denoised)` after each update.

    Returns:
        Tensor [N, C, h, w], the latent at sigmas[-1].

    Source: Karras et al. 2022, algorithm 1 in its Euler form, s_churn = 0.
    """
    sigmas = sigmas.to(noise)
    deltas = sigmas.diff()
    x = noise * (1.0 + sigmas[0] ** 2).sqrt()
    for i in range(len(sigmas) - 1):
        if before_step is not None:
            before_step(i, sigmas[i])
        denoised = denoiser(x, i)
        x = x + deltas[i] * ((x - denoised) / sigmas[i])
        if on_step is not None:
            on_step(i, x, denoised)
    return x


@torch.no_grad()
def sample_dpmpp_2m(
    denoiser: Denoiser,
    noise: Tensor,
    sigmas: Tensor,
    before_step: BeforeStep | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Integrate from noise to sample by DPM-Solver++(2M), the second-order control.

    Step 0 and a step that ends at 0 are of first order: there is no history, or no finite
    log-step. Arguments and result are those of `sample_euler`.

    Source: Lu et al. 2022 (DPM-Solver++), algorithm 2, with alpha = 1, lambda = -ln(sigma), and
    exp(-h) written as the ratio of the levels.
    """
    sigmas = sigmas.to(noise)
    ratios = sigmas[1:] / sigmas[:-1]
    log_steps = -ratios.log()
    history = 0.5 * log_steps[1:] / log_steps[:-1]
    if len(history):
        history[-1] = torch.where(sigmas[-1] > 0, history[-1], 0.0)
    x = noise * (1.0 + sigmas[0] ** 2).sqrt()
    previous = None
    for i in range(len(sigmas) - 1):
        if before_step is not None:
            before_step(i, sigmas[i])
        denoised = denoiser(x, i)
        target = denoised
        if previous is not None:
            target = denoised + history[i - 1] * (denoised - previous)
        x = ratios[i] * x + (1.0 - ratios[i]) * target
        previous = denoised
        if on_step is not None:
            on_step(i, x, denoised)
    return x
