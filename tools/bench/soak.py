"""Suite `soak`: hundreds of sessions of nano in one process; does anything grow?

Resident memory is read after each session. It is flat where the median of the last tenth lies
within 2 % of the second tenth's: the first tenth warms allocators up. Slots must be gone, and
nothing may be compiled or built, once the first session is over.
"""

from __future__ import annotations

import gc
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from turbo4d.compiler.backend import CompiledDenoiser
from turbo4d.runtime.runner import Runner
from turbo4d.runtime.slot_value import SlotValue
from turbo4d.tools.bench.row import RowSpec
from turbo4d.tools.bench.sampled_job import assets_of
from turbo4d.tools.bench.soak_picture import draw as draw
from turbo4d.tools.bench.suite import SuiteOptions
from turbo4d.tools.failures import JobError
from turbo4d.tools.load_model import LoadedModel, load_model
from turbo4d.tools.sampling import Turbo

FLAT = 0.02
STEPS = 20
_PLAN = "balanced"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_RESIDENT = Path("/proc/self/statm")


def rows(options: SuiteOptions) -> list[RowSpec]:
    """One row; a run is a session."""
    return [
        RowSpec(
            suite="soak", group="soak", system=f"turbo4d:{_PLAN}", plan=_PLAN, lowering="eager",
            settings={
                "model": options.model or "nano", "scenes": options.scenes, "seed": options.seed,
                "steps": STEPS,
            },
            warmups=0,
            runs=options.sessions - 1,
        )
    ]  # fmt: skip


def prepare(spec: RowSpec, folder: Path) -> SoakJob:
    """The job of the row.

    Raises:
        JobError: resident memory cannot be read here.
    """
    if not _RESIDENT.exists():
        raise JobError(
            f"resident memory cannot be read: there is no {_RESIDENT}; run the soak on Linux."
        )
    model = load_model(spec.settings["model"], None, torch.float32, torch.device("cpu"))
    return SoakJob(spec, model)


class SoakJob:
    """Sessions one after the other, on scenes in turn.

    Args:
        spec: with settings scenes, seed, steps; its plan and lowering.
        model: not compiled.

    Attributes:
        device: of the network.
    """

    def __init__(self, spec: RowSpec, model: LoadedModel) -> None:
        self.device: torch.device = model.device
        self._assets = assets_of(model, spec.settings["scenes"], spec.settings["seed"])
        options = {"plan": spec.plan, "lowering": spec.lowering}
        self._turbo = Turbo(model, spec.settings["steps"], options)
        self._resident: list[int] = []
        self._alive: list[int] = []
        self._engines: list[int] = []

    def first(self) -> None:
        """The first session, which compiles."""
        self.run()

    def run(self) -> Tensor:
        """One session; then memory is read."""
        latent = self._turbo.sample(self._assets[len(self._resident) % len(self._assets)])
        self._resident.append(_resident_bytes())
        self._alive.append(_slots_alive())
        self._engines.append(_engines_of(self._turbo))
        return latent

    def facts(self) -> dict[str, Any]:
        """Whether anything grew; resident bytes after each session."""
        growth = growth_of(self._resident)
        engines = self._engines[-1] - self._engines[0]
        flat = abs(growth) <= FLAT and not engines and not max(self._alive)
        return {
            "sessions": len(self._resident),
            "resident_bytes": self._resident,
            "growth": growth,
            "slots_alive": max(self._alive),
            "engines_built_later": engines,
            "flat": flat,
            "note": f"last tenth {growth:+.2%} of the second, {max(self._alive)} slots left, "
            f"{engines} engines built after the first session",
        }

    def close(self) -> None:
        """Nothing is held."""


def growth_of(resident: Sequence[int]) -> float:
    """How far the last tenth's median lies above the second tenth's, as a share of this.

    Args:
        resident: bytes after each session.
    """
    tenth = max(1, len(resident) // 10)
    second = statistics.median(resident[tenth : 2 * tenth] or resident)
    return statistics.median(resident[-tenth:]) / second - 1.0


def _resident_bytes() -> int:
    return int(_RESIDENT.read_text().split()[1]) * _PAGE_BYTES


def _slots_alive() -> int:
    """Values of slots that somebody holds; without collecting, which would hide a cycle."""
    return sum(type(each) is SlotValue for each in gc.get_objects())  # a proxy may point to nothing


def _engines_of(turbo: Turbo) -> int:
    built = turbo.denoiser
    runner = built.call if isinstance(built, CompiledDenoiser) else None
    return runner.engines_built if isinstance(runner, Runner) else 0
