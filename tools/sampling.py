"""The two runs that are compared: the plain network, and the same network under turbo4d."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from turbo4d.compiler.analysis import Analysis
from turbo4d.compiler.backend import CompiledDenoiser
from turbo4d.compiler.backend import turbo4d as backend
from turbo4d.compiler.costs import variant_flops
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.specialise import specialise
from turbo4d.models.guiders import Guider
from turbo4d.models.sampler import guided_denoiser, sample_dpmpp_2m, sample_euler
from turbo4d.models.schedule import edm_sigmas
from turbo4d.runtime.plan import Plan, RegionInfo
from turbo4d.runtime.plan_text import picture
from turbo4d.runtime.report import Report
from turbo4d.runtime.variant_key import VariantKey
from turbo4d.tools.asset import Asset
from turbo4d.tools.guided_session import GUIDER as GUIDER
from turbo4d.tools.guided_session import sample_in_session
from turbo4d.tools.load_model import LoadedModel

SOLVERS: Mapping[str, Callable[..., Tensor]] = {
    "euler": sample_euler,
    "dpmpp_2m": sample_dpmpp_2m,
}


def lowered(model: LoadedModel, lowering: str) -> LoadedModel:
    """The model as the uncached side runs it.

    Torch's own compiler under `inductor`; where torch has none, our lowering of the plain graph,
    which under `auto` is the module itself.
    """
    if lowering in ("eager", "auto"):
        return model
    ours: Any = partial(backend, plan="none", lowering=lowering)
    one = lowering if lowering == "inductor" else ours
    network = torch.compile(model.network, backend=one, fullgraph=True, dynamic=False)
    return dataclasses.replace(model, network=network)


def sample_plain(
    model: LoadedModel,
    asset: Asset,
    steps: int,
    solver: str = "euler",
    guider: Guider = GUIDER,
) -> Tensor:
    """The uncached sample: both branches of every step computed, by the network as it is.

    Args:
        model: the network.
        asset: conditioning and noise.
        steps: of the schedule.
        solver: a key of SOLVERS.
        guider: guidance scales over the frames x views grid.

    Returns:
        The latent [F*V, 4, h, w].
    """
    sigmas = edm_sigmas(steps).to(asset.noise)
    denoiser = guided_denoiser(model.network, asset.conditioning, guider, sigmas)
    return SOLVERS[solver](denoiser, asset.noise, sigmas)


class Turbo:
    """The network compiled by turbo4d, sampled in a fresh session each time.

    Args:
        model: the network.
        steps: of the schedule.
        options: of the backend; its lowering is `eager` unless they name another.
        guider: guidance scales; where all are exactly 1, the conditional branch alone is sampled.

    Attributes:
        steps: as given.
        network: compiled, to be called in a session.
        report: of the last session.
        plan: that it carried out.
        regions: of the network.
        analysis: of the network, None before it was called.
        denoiser: what the backend made of it, None before it was called.
    """

    def __init__(
        self,
        model: LoadedModel,
        steps: int,
        options: Mapping[str, Any],
        guider: Guider = GUIDER,
    ) -> None:
        self.steps = steps
        self._guider = guider
        self.report: Report | None = None
        self.plan: Plan | None = None
        self.regions: tuple[RegionInfo, ...] = ()
        self.analysis: Analysis | None = None
        self.denoiser: Callable[..., Any] | None = None
        self._flops: dict[VariantKey, int] = {}
        self._options = {"lowering": "eager", **options}
        self.network = torch.compile(
            model.network, backend=self._backend, fullgraph=True, dynamic=False
        )

    def _backend(self, gm: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        # What torch.compile(backend="turbo4d") calls; here, to see the regions too.
        built = backend(gm, inputs, options=self._options)
        if isinstance(built, CompiledDenoiser) and built.analysis is not None:
            self.analysis = built.analysis
            self.regions = tuple(region.info for region in built.analysis.regions)
        self.denoiser = built
        return built

    def sample(
        self,
        asset: Asset,
        plan: Plan | None = None,
        adaptive: bool | Mapping[str, Any] | None = None,
    ) -> Tensor:
        """The latent [F*V, 4, h, w], by Euler's method.

        Args:
            asset: conditioning and noise.
            plan: instead of the one that the network was compiled with.
            adaptive: likewise.
        """
        found = sample_in_session(self.network, asset, self.steps, plan, adaptive, self._guider)
        self.report, self.plan = found.report, found.plan
        return found.latent

    def flops(self, key: VariantKey) -> int:
        """Operations of one step of a variant, counted in its graph.

        Raises:
            ValueError: the network has not been called yet.
        """
        if self.analysis is None:
            raise ValueError("turbo: the network has not been sampled yet")
        if key not in self._flops:
            self._flops[key] = variant_flops(specialise(self.analysis, key))
        return self._flops[key]

    @property
    def prologue_flops(self) -> int:
        """Operations that a run of exact variants does once; 0 before the network was called."""
        return 0 if self.analysis is None else exact_form(self.analysis).prologue.flops

    def picture(self) -> str:
        """The plan of the last session in letters, a column per step, and where it comes from."""
        if self.plan is None:
            return "no plan"
        origin = f"\norigin: {self.plan.origin}" if self.plan.origin else ""
        return f"{picture(self.plan, self.regions)}{origin}"
