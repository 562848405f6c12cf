"""turbo4d on the cases of suite `peers`, under a preset or a plan of its own."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from turbo4d.runtime.plan import Plan

import turbo4d

from .cases import STEPS, Case
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
        options = {"lowering": lowering, "geometry": dict(case.geometry)}
        compiled: Any = torch.compile(case.network, backend="turbo4d", options=options)
        self._plan = plan
        self._report: dict[str, Any] = {}
        super().__init__(case, Prepared(compiled), seed, folder, self._said)

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
        return self._latent

    def _said(self) -> dict[str, Any]:
        kept = ("calls_by_variant", "variants", "cache_peak_bytes", "weights_bytes", "events")
        origin = self._plan.origin if isinstance(self._plan, Plan) else None
        return {name: self._report.get(name) for name in kept} | {"plan_origin": origin}
