"""How a model of ours is sampled in a session: Euler's method, guided as SV4D is.

Of turbo4d's own parts it imports the runtime alone: `turbo4d run` samples without the compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from turbo4d.models.guiders import Guider, SpatiotemporalPredictionGuider
from turbo4d.models.sampler import BeforeStep, guided_denoiser, sample_euler
from turbo4d.models.schedule import edm_sigmas
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.report import Report
from turbo4d.runtime.session import session
from turbo4d.tools.asset import Asset

GUIDER = SpatiotemporalPredictionGuider(max_scale=2.0, min_scale=1.0)


@dataclass(frozen=True)
class Sample:
    """What a session gave.

    Args:
        latent: [F*V, 4, h, w].
        report: of the session.
        plan: that it carried out.
    """

    latent: Tensor
    report: Report
    plan: Plan | None


def sample_once(
    denoiser: Callable[..., Any],
    asset: Asset,
    steps: int,
    before_step: BeforeStep | None = None,
    guider: Guider = GUIDER,
) -> Tensor:
    """The latent [F*V, 4, h, w], in one call of the denoiser for each step.

    A guider whose scales are all exactly 1 needs no unconditional branch, and none is computed.

    Args:
        denoiser: called as the network.
        asset: conditioning and noise.
        steps: of the schedule.
        before_step: called with the step's index before each.
        guider: guidance scales over the frames x views grid, the same at all steps.
    """
    sigmas = edm_sigmas(steps).to(asset.noise)
    held = asset.conditioning
    guided = guided_denoiser(denoiser, held, guider, sigmas, every_branch=False)
    return sample_euler(guided, asset.noise, sigmas, before_step=before_step)


def sample_in_session(
    denoiser: Callable[..., Any],
    asset: Asset,
    steps: int,
    plan: Plan | None = None,
    adaptive: bool | Mapping[str, Any] | None = None,
    guider: Guider = GUIDER,
) -> Sample:
    """A sample in a fresh session.

    Args:
        denoiser: compiled, or of a bundle.
        asset: conditioning and noise.
        steps: of the schedule.
        plan: instead of the denoiser's own.
        adaptive: likewise.
        guider: as of `sample_once`.
    """
    levels = edm_sigmas(steps).tolist()
    with session(denoiser, steps=steps, levels=levels, plan=plan, adaptive=adaptive) as run:
        latent = sample_once(denoiser, asset, steps, lambda i, sigma: run.step(i), guider)
        return Sample(latent, run.report(), run.plan)
