"""A network as each system of suite `gpu` runs it; compiled once for all rows of a process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from turbo4d.compiler.analysis import Analysis
from turbo4d.compiler.backend import CompiledDenoiser
from turbo4d.compiler.backend import turbo4d as backend
from turbo4d.compiler.costs import variant_flops
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.specialise import specialise
from turbo4d.compiler.traffic import count_bytes
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.report import Report
from turbo4d.runtime.session import session
from turbo4d.runtime.shipped_plans import shipped_plans
from turbo4d.tools.bench.gpu_network import Work, call_of, levels_of, network, sample
from turbo4d.tools.failures import JobError

SHAPE = "shape:"
"""Before a preset's name: nano's fitted plan of that name, its weights meaning nothing here."""


def plain(work: Work, system: str, mode: str | None) -> Callable[..., Tensor]:
    """The network without turbo4d.

    Args:
        work: that is sampled.
        system: "eager" or "inductor".
        mode: of torch.compile.
    """
    if system == "eager":
        return network(work)
    return torch.compile(network(work), fullgraph=True, dynamic=False, mode=mode)


class Turbo:
    """The network compiled by turbo4d; each sample in a session of its own, under any plan.

    Args:
        work: that is sampled.
        lowering: of all engines.
        cuda_graphs: whether whole steps are recorded and replayed.

    Attributes:
        report: of the last session, None before the first.
        plan: that it carried out.
    """

    def __init__(self, work: Work, lowering: str, cuda_graphs: bool) -> None:
        self.work = work
        self.report: Report | None = None
        self.plan: Plan | None = None
        # A session names its own plan; a call outside one computes everything.
        self._options: dict[str, Any] = {"plan": "exact", "lowering": lowering}
        if cuda_graphs:
            self._options["cuda_graphs"] = True
        self._analysis: Analysis | None = None
        self._network = torch.compile(
            network(work), backend=self._backend, fullgraph=True, dynamic=False
        )

    def _backend(self, gm: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        # What torch.compile(backend="turbo4d") calls; here, to see the regions too.
        built = backend(gm, inputs, options=self._options)
        if isinstance(built, CompiledDenoiser):
            self._analysis = built.analysis
        return built

    @property
    def analysis(self) -> Analysis:
        """Of the network; compiles where nothing has yet."""
        if self._analysis is None:
            with torch.no_grad():
                self._network(**call_of(self.work))
        if self._analysis is None:
            raise JobError(f"{self.work.model} was compiled and not analysed; it has no regions.")
        return self._analysis

    def sample(self, plan: str) -> Tensor:
        """A latent.

        Args:
            plan: a preset's name; or after `SHAPE` that of a plan fitted to nano.
        """
        work, levels = self.work, levels_of(self.work)
        given = self._shaped(plan.removeprefix(SHAPE)) if plan.startswith(SHAPE) else plan
        with session(self._network, steps=work.steps, levels=levels, plan=given) as run:
            latent = sample(self._network, work, lambda i, sigma: run.step(i))
            self.report, self.plan = run.report(), run.plan
        return latent

    def step(self) -> Tensor:
        """One call outside any run, everything computed."""
        with torch.no_grad():
            return self._network(**call_of(self.work))

    def _shaped(self, preset: str) -> Plan:
        """A plan fitted to nano with this network's name on it: the time is real, no picture is."""
        for plan in shipped_plans():
            if plan.name == preset and plan.steps == self.work.steps:
                return dataclasses.replace(
                    plan,
                    name=f"{SHAPE}{preset}",
                    model=self.analysis.capture.fingerprint,
                    geometry=self.analysis.geometry,
                    weights_sha256=None,
                )
        offered = sorted({plan.steps for plan in shipped_plans() if plan.name == preset})
        raise JobError(
            f"no fitted plan {preset!r} of {self.work.steps} steps comes with turbo4d; "
            f"choose --steps {' or '.join(map(str, offered))}."
        )

    def effort(self) -> dict[str, int]:
        """Operations and bytes of the last run, by the graphs of its engines and the prologue."""
        if self.plan is None or self.report is None:
            return {}
        regions = [region.info for region in self.analysis.regions]
        keys = {self.plan.variant("main", step, regions) for step in range(self.plan.steps)}
        found = {"flops": 0, "bytes": 0}
        for key in keys:
            variant = specialise(self.analysis, key)
            calls = self.report["calls_by_variant"].get(key.name, 0)
            found["flops"] += calls * variant_flops(variant)
            found["bytes"] += calls * count_bytes(variant.module.graph)
        if any(key.exact for key in keys):
            prologue = exact_form(self.analysis).prologue
            found["flops"] += prologue.flops
            found["bytes"] += count_bytes(prologue.module.graph)
        return found


@lru_cache(maxsize=2)
def turbo_of(work: Work, lowering: str, cuda_graphs: bool) -> Turbo:
    """Of this process; rows that differ in their plan alone share it."""
    return Turbo(work, lowering, cuda_graphs)
