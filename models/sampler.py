"""Deterministic samplers over a guided denoiser: Euler, and DPM-Solver++(2M) as the control.

Nothing inside a loop reads a value back from the device, and what depends only on the conditioning
or the schedule is computed before the loop. The latent keeps its own dtype throughout (float32
for a bfloat16 model); the model sees the dtype of its conditioning.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .branches import Branches
from .guiders import Guider, combine
from .schedule import VScaling, v_scaling

Model = Callable[..., Tensor]
Denoiser = Callable[[Tensor, int], Tensor]
BeforeStep = Callable[[int, Tensor], object]
OnStep = Callable[[int, Tensor, Tensor], object]


def denoise(
    model: Model, x: Tensor, scaling: VScaling, inputs: dict[str, Tensor], scale: Tensor
) -> Tensor:
    """Guided prediction of the clean latent at one noise level, in one call of the model.

    Args:
        model: called as `SV4DUNet.forward`, on the unconditional branch and then the conditional.
        x: noisy latent [F*V, 4, h, w], image order (f v).
        scaling: coefficients of the level: scalars, and `c_noise` [2*F*V].
        inputs: both branches of the conditioning, from `Branches.joined`.
        scale: guidance scales [F*V].

    Returns:
        Tensor [F*V, 4, h, w] of x's dtype.
    """
    concat, images = inputs["concat"], x.shape[0]
    scaled = (x * scaling.c_in).to(concat.dtype)
    out = model(
        torch.cat([scaled.repeat(2, 1, 1, 1), concat], dim=1),
        scaling.c_noise,
        context=inputs["crossattn"],
        y=inputs["vector"],
        num_video_frames=images,
        image_only_indicator=inputs["image_only_indicator"],
        cond_view=inputs["cond_view"],
        cond_motion=inputs["cond_motion"],
    )
    skip = x * scaling.c_skip
    uncond, cond = (half.to(x.dtype) * scaling.c_out + skip for half in out.chunk(2))
    return combine(uncond, cond, scale)


def guided_denoiser(
    model: Model, conditioning: Branches, guider: Guider, sigmas: Tensor
) -> Denoiser:
    """Bind a model to its conditioning and schedule: `denoiser(x, i)` predicts at step i.

    Args:
        model: called as `SV4DUNet.forward`.
        conditioning: both branches of one stream; its dtype is what the model is fed.
        guider: guidance scales over the frames x views grid.
        sigmas: noise levels [steps + 1], of the latent's dtype; moved to the conditioning's
            device. The trailing 0 is never evaluated.

    Returns:
        A function of the latent [F*V, 4, h, w] and the step's index.
    """
    frames, views = conditioning.frames, conditioning.views
    inputs = conditioning.joined()
    sigmas = sigmas.to(inputs["concat"].device)
    scale = guider.scale(frames, views, sigmas.dtype).to(sigmas.device)
    table = v_scaling(sigmas[:-1])
    labels = table.c_noise[:, None].repeat(1, 2 * frames * views)
    steps = [
        VScaling(*row) for row in zip(table.c_skip, table.c_out, table.c_in, labels, strict=True)
    ]
    return lambda x, i: denoise(model, x, steps[i], inputs, scale)


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
