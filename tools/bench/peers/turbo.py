"""turbo4d on the cases of suite `peers`, under a preset or a plan of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from turbo4d.compiler.backend import CompiledDenoiser
from turbo4d.compiler.backend import turbo4d as backend
from turbo4d.runtime.plan import Plan

import turbo4d

from .cases import STEPS, Case
from .operations import plan_share, share_note
from .peer_job import PeerJob
from .prepared import Prepared
from .sampling import sample


class TurboJob(PeerJob):
    """A case in sessions.

    Args:
        case: what is sampled.
        plan: a preset's name, or a plan.
        lowering: of the graphs.
        seed: of the example.
        folder: that rows share.
    """

    def __init__(
        self, case: Case, plan: str | Plan, lowering: str, seed: int, folder: Path
    ) -> None:
        self._options = {"lowering": lowering, "geometry": dict(case.geometry)}
        compiled: Any = torch.compile(case.network, backend=self._backend)
        self._plan = plan
        self._carried_out: Plan | None = None
        self._built: CompiledDenoiser | None = None
        self._report: dict[str, Any] = {}
        super().__init__(case, Prepared(compiled), seed, folder, self._said)

    def _backend(self, gm: torch.fx.GraphModule, inputs: Sequence[Any]) -> Any:
        # What torch.compile(backend="turbo4d") calls; here, to count the operations of its graphs.
        built = backend(gm, inputs, options=self._options)
        if isinstance(built, CompiledDenoiser):
            self._built = built
        return built

    def run(self) -> Tensor:
        """A sample in a session of its own."""
        case, fast = self._case, self._system.denoiser
        with turbo4d.session(
            fast,
            steps=STEPS,
            levels=case.levels,
            level_unit=case.level_unit,
            plan=self._plan,
            streams=("cond", "uncond") if case.branches == "apart" else None,
        ) as run:

            def before(step: int, timestep: Tensor, stream: str) -> Any:
                run.step(step, stream=stream)
                return nullcontext()

            self._latent = sample(case, fast, self._example, before)
            self._report = dict(run.report())
            self._carried_out = run.plan
        return self._latent

    def _said(self) -> dict[str, Any]:
        kept = ("calls_by_variant", "variants", "cache_peak_bytes", "weights_bytes", "events")
        origin = self._plan.origin if isinstance(self._plan, Plan) else None
        found = {name: self._report.get(name) for name in kept} | {"plan_origin": origin}
        analysis = self._built.analysis if self._built is not None else None
        if analysis is None or self._carried_out is None:
            return found
        regions = [region.info for region in analysis.regions]
        share = plan_share(analysis, self._carried_out, regions)
        return found | {"operations_share": share, "note": share_note(share)}
