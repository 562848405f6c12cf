"""The policies of others as rows: each with the setting that a sweep found fastest at 35 dB.

The sweep is stored (`tools/measure/rivals.py`); where none of a policy's settings reaches 35 dB,
its best is run. What an adaptive policy looks at is stored there too, for each scene: the look
costs it nothing, which is in its favour.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor
from turbo4d.runtime.plan import Plan
from turbo4d.tools.asset import Asset
from turbo4d.tools.bench.row import RowSpec
from turbo4d.tools.bench.sampled_job import SampledJob
from turbo4d.tools.control import NAMES
from turbo4d.tools.failures import JobError
from turbo4d.tools.load_model import LoadedModel
from turbo4d.tools.plan_rows import letters
from turbo4d.tools.rivals.bench import Bench
from turbo4d.tools.rivals.measure import CALIBRATION
from turbo4d.tools.rivals.pareto import fastest
from turbo4d.tools.rivals.setting import Setting
from turbo4d.tools.rivals.signals import Signals, record
from turbo4d.tools.rivals.state import OURS
from turbo4d.tools.rivals.sweep import sweep

SWEPT = Path(__file__).parent.parent / "results" / "pareto-nano-v1.json"
TARGET_DB = 35.0
_SOLVERS = {f"fewer steps, {said}": solver for solver, said in NAMES.items()}
_LOWERING = "native"  # the fastest that needs no compiling, so that policies are seen at their best
_QUICK = ("First-Block-Cache", "DeepCache", "fewer steps, Euler")


def rows(row: Callable[..., RowSpec], *, quick: bool, model: str) -> list[RowSpec]:
    """A row for each policy, and for fewer steps by each solver, at the sweep's setting.

    Args:
        row: makes one of a system and settings.
        quick: the strongest alone.
        model: which the sweep must be of; another has no such rows.
    """
    if model != "nano":
        return []
    found = json.loads(SWEPT.read_text(encoding="utf-8"))["pareto"]
    systems = dict.fromkeys(each["system"] for each in found if each["system"] != OURS)
    chosen = [_chosen(found, system) for system in systems if not quick or system in _QUICK]
    return [_row(row, each["system"], each["knob"]) for each in chosen]


def _chosen(found: list[dict[str, Any]], system: str) -> dict[str, Any]:
    own = [each for each in found if each["system"] == system and each["seconds"] is not None]
    best = max(own, key=lambda each: each["psnr_mean_db"])
    return dict(fastest(found, system, TARGET_DB) or best)


def _row(row: Callable[..., RowSpec], system: str, knob: str) -> RowSpec:
    if system in _SOLVERS:
        count, solver = int(knob.split()[0]), _SOLVERS[system]
        return row(f"steps:{count}:{solver}", lowering="eager", count=count, solver=solver)
    return row(f"policy:{system}", lowering=_LOWERING, knob=knob)


def prepare(spec: RowSpec, model: LoadedModel, folder: Path) -> SampledJob:
    """The job of a policy.

    Raises:
        JobError: the sweep knows no such setting.
    """
    bench = Bench(model, spec.settings["steps"], spec.lowering)
    policy = _Policy(bench, spec)

    def says() -> dict[str, Any]:
        # It compiles while it is prepared, which nothing times.
        return {"knob": policy.setting.knob, "rows": policy.rows, "compile_s": None}

    return SampledJob(model, policy.sample, spec, folder, says)


class _Policy:
    """A policy's setting, and the runs that it makes of scenes."""

    def __init__(self, bench: Bench, spec: RowSpec) -> None:
        found = json.loads(SWEPT.read_text(encoding="utf-8"))
        self._bench, self._stored = bench, found["signals"]
        calibration = [Signals.from_json(found["calibration"][str(at)]) for at in CALIBRATION]
        name = spec.system.removeprefix("policy:")
        known = sweep(bench.steps, bench.turbo.regions, calibration)
        wanted = f"{name} | {spec.settings['knob']}"
        setting = next((each for each in known if each.name == wanted), None)
        if setting is None:
            raise JobError(
                f"policy {wanted!r} is no setting of the sweep any more; measure the rivals again "
                "with tools/measure/rivals.py."
            )
        self.setting: Setting = setting
        self.rows: dict[str, str] = {}
        self._runs: dict[str, Any] = {}

    def sample(self, asset: Asset) -> Tensor:
        """The latent; a scene's plan is made the first time, before the clock of later runs."""
        name = asset.scene.name
        if name not in self._runs:
            self._runs[name] = self._bench.run_of(self.setting, self._seen(asset))
            run = self._runs[name]
            self.rows[name] = letters(run) if isinstance(run, Plan) else str(run)
        return self._bench.sample(asset, self._runs[name])

    def _seen(self, asset: Asset) -> Signals:
        stored = self._stored.get(str(asset.scene.index))
        if stored is not None:
            return Signals.from_json(stored)
        return record(self._bench.model, asset, self._bench.steps)[1]
