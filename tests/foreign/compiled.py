"""The foreign models, compiled once for the tests of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from turbo4d.compiler.analysis import Analysis
from turbo4d.compiler.backend import CompiledDenoiser
from turbo4d.compiler.backend import turbo4d as backend
from turbo4d.tools.foreign_models import Foreign, build

import turbo4d


@dataclass(frozen=True)
class Compiled:
    """A foreign model, its compiled form, and what the backend found in it."""

    foreign: Foreign
    fast: Callable[..., Any]
    analysis: Analysis

    def one_call(self, plan: str) -> Tensor:
        """The output for the model's own inputs, in a session of one step."""
        with turbo4d.session(self.fast, levels=[700.0], plan=plan, level_unit="timestep") as run:
            run.step(0)
            return self.fast(**self.foreign.inputs)[0]

    def still(self, steps: int) -> tuple[list[Tensor], dict[str, int]]:
        """What each step of preset balanced gives where no input changes; the calls."""
        levels = [1000.0 * (steps - step) / steps for step in range(steps)]
        outputs: list[Tensor] = []
        with turbo4d.session(self.fast, levels=levels, level_unit="timestep") as run:
            for step in range(steps):
                run.step(step)
                outputs.append(self.fast(**self.foreign.inputs)[0])
            return outputs, dict(run.report()["calls_by_variant"])


def compiled(factory: str) -> Compiled:
    """With nothing but its geometry; under no_grad, as the calls are to be."""
    foreign = build(factory)
    made: list[CompiledDenoiser] = []

    def door(gm: fx.GraphModule, inputs: Sequence[Any]) -> Any:
        denoiser = backend(gm, inputs, options={"geometry": dict(foreign.geometry)})
        assert isinstance(denoiser, CompiledDenoiser)
        made.append(denoiser)
        return denoiser

    fast = torch.compile(foreign.module, backend=door, fullgraph=True)
    fast(**foreign.inputs)
    [denoiser] = made
    assert denoiser.analysis is not None
    return Compiled(foreign, fast, denoiser.analysis)
