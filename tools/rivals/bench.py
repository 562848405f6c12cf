"""A network on which rivals are run: its scenes, what a setting makes of each, and the judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from statistics import mean

from torch import Tensor
from turbo4d.models.metrics import psnr
from turbo4d.models.sampler import guided_denoiser
from turbo4d.models.scenes import render_scene
from turbo4d.models.schedule import edm_sigmas
from turbo4d.runtime.plan import Plan
from turbo4d.tools.asset import Asset, decode, image_size, prepare
from turbo4d.tools.fidelity import capped, object_mask
from turbo4d.tools.load_model import LoadedModel
from turbo4d.tools.rivals.effort import Effort
from turbo4d.tools.rivals.setting import Setting
from turbo4d.tools.rivals.signals import Signals
from turbo4d.tools.sampling import GUIDER, SOLVERS, Turbo, sample_plain
from turbo4d.tools.scene_input import held_out_scene, scene_input

import turbo4d

Run = Plan | tuple[str, int]  # a plan, or solver and steps of a run that computes each

_MAX_VARIANTS = 64


class Bench:
    """The network, plain and compiled.

    Args:
        model: a denoiser of the SV4D family.
        steps: of the schedule.
        lowering: of the compiled one.
    """

    def __init__(self, model: LoadedModel, steps: int, lowering: str = "eager") -> None:
        self.model, self.steps = model, steps
        self.turbo = Turbo(model, steps, {"plan": "exact", "lowering": lowering})
        self.turbo.sample(self.validation(0))
        if self.turbo.plan is None:
            raise ValueError("rivals: the network carried out no plan")
        self.base: Plan = self.turbo.plan
        self._effort = Effort(self.turbo)

    def validation(self, scene: int) -> Asset:
        """A scene to choose settings by."""
        views, frames, size = self._shape()
        shown = render_scene(scene, "validation", views=views, frames=frames, size=size)
        return prepare(self.model, scene_input(shown), seed=scene)

    def held_out(self, scene: int) -> Asset:
        """A scene to judge by."""
        return prepare(self.model, held_out_scene(scene, *self._shape()), seed=0)

    def _shape(self) -> tuple[int, int, int]:
        config = self.model.config
        return config.views or 1, config.frames or 1, image_size(self.model)

    def run_of(self, setting: Setting, signals: Signals) -> Run:
        """What a setting makes of a scene."""
        if setting.plan is not None:
            return setting.plan
        if setting.rows is None:
            return setting.solver, setting.steps
        return dataclasses.replace(
            self.base,
            name=setting.system,
            streams={"main": setting.rows(signals)},
            max_age=self.steps,
            max_variants=_MAX_VARIANTS,
        )

    def sample(self, asset: Asset, run: Run) -> Tensor:
        """The latent that a run gives, by turbo4d's graphs; fewer steps have exact passes too."""
        if isinstance(run, Plan):
            return self.turbo.sample(asset, run)
        solver, steps = run
        network, sigmas = self.turbo.network, edm_sigmas(steps)
        with turbo4d.session(network, steps=steps, levels=sigmas.tolist(), plan="exact") as session:
            noise = asset.noise
            denoiser = guided_denoiser(network, asset.conditioning, GUIDER, sigmas.to(noise))
            return SOLVERS[solver](
                denoiser, noise, sigmas, before_step=lambda step, _: session.step(step)
            )

    def uncached(self, asset: Asset) -> Tensor:
        """The latent of the network as it is, every step computed."""
        return sample_plain(self.model, asset, self.steps)

    def effort(self, setting: Setting, scenes: Sequence[Signals]) -> float:
        """The expected seconds of a setting, the mean over scenes."""
        return mean(self._effort.of(self.run_of(setting, scene)) for scene in scenes)

    def judge(self, asset: Asset, latent: Tensor | None = None) -> Judge:
        """Who judges samples of an asset.

        Args:
            asset: that is sampled.
            latent: its uncached sample, None where it is still to be made.
        """
        if latent is None:
            latent = self.uncached(asset)
        return Judge(self.model, asset, latent)


class Judge:
    """PSNR in the object against the uncached sample.

    Args:
        model: the network.
        asset: that was sampled.
        latent: the uncached sample.
    """

    def __init__(self, model: LoadedModel, asset: Asset, latent: Tensor) -> None:
        self.latent = latent
        self._model = model
        self._reference = decode(model, latent)
        self._mask = object_mask(asset.scene, self._reference)

    def of(self, latent: Tensor) -> float:
        """Of another sample, in dB."""
        found = psnr(decode(self._model, latent), self._reference, self._mask)
        return round(capped(found), 3)
