"""A level that is a Python number: one graph for all of them, and the module's own numbers."""

from typing import Any

import pytest
import torch
from torch import nn
from turbo4d.compiler.backend import CompiledDenoiser
from turbo4d.compiler.capture import capture_compiled
from turbo4d.compiler.ir import Capture

from tests.compiler.small_denoiser import (
    AsTensor,
    Filled,
    Half,
    Repeated,
    Row,
    Scaled,
    Small,
    sample,
    small,
)
from turbo4d import session

TIMESTEPS, SIGMAS = (999, 981, 700, 41), (14.6, 7.3, 3.1, 0.7)

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


def as_it_is(model: nn.Module) -> tuple[Any, list[Capture]]:
    """A module whose captured graphs run as they are, and the graphs."""
    made: list[Capture] = []

    def door(gm: Any, inputs: Any) -> Any:
        made.append(capture_compiled(gm, inputs))
        return CompiledDenoiser(made[-1], made[-1].module, None)

    return torch.compile(model, backend=door, fullgraph=True), made


def embedding(kind: type[Small]) -> Small:
    """What a denoiser does with its level, and next to nothing else."""
    model = small(kind)
    model.blocks = nn.ModuleList()
    return model


@pytest.mark.parametrize(
    ("kind", "levels"),
    [
        (AsTensor, TIMESTEPS),
        (AsTensor, SIGMAS),
        (Filled, TIMESTEPS),
        (Filled, SIGMAS),
        (Scaled, TIMESTEPS),
        (Scaled, SIGMAS),
        (Row, TIMESTEPS),
    ],
)
def test_every_number_after_the_first_has_one_graph_and_its_bits(
    kind: type[Small], levels: tuple[float, ...]
) -> None:
    model = embedding(kind)
    fast, made = as_it_is(model)
    for level in levels:
        assert torch.equal(fast(sample(), level), model(sample(), level))
    assert len(made) == 2


def test_half_precision_meets_a_number_as_the_module_does() -> None:
    model = embedding(Half).bfloat16()
    fast, made = as_it_is(model)
    for level in SIGMAS:
        x = sample().bfloat16()
        assert torch.equal(fast(x, level), model(x, level))
    assert len(made) == 2


def test_it_is_the_level_and_steps_after_the_first_share_slots() -> None:
    model = small(AsTensor)
    fast = torch.compile(model, backend="turbo4d", fullgraph=True, options={"plan": "fast"})
    levels = range(800, 0, -100)
    for _ in range(2):
        with session(fast, levels=levels, level_unit="timestep") as run:
            for step, level in enumerate(levels):
                run.step(step)
                fast(sample(step), level)
    report = run.report()
    assert "slots-dropped" not in {event["kind"] for event in report["events"]}
    assert any("reuse" in name for name in report["calls_by_variant"])
    runner: Any = next(iter(run._bindings.runners()))
    assert runner.signature.names[runner.signature.level] == "level"


def test_a_number_that_says_a_size_stays_one() -> None:
    model = embedding(Repeated)
    fast, made = as_it_is(model)
    for level in (7, 5, 7, 5, 6):
        assert torch.equal(fast(sample(), level), model(sample(), level))
    assert len(made) == 3
