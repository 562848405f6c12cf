"""A guider whose scales are all 1: turbo4d samples the conditional branch alone, plain both."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from turbo4d.models.guiders import VanillaCFG
from turbo4d.tools.asset import Asset, prepare
from turbo4d.tools.guided_session import sample_once
from turbo4d.tools.load_model import LoadedModel, load_model
from turbo4d.tools.sampling import Turbo, sample_plain
from turbo4d.tools.scene_input import held_out_scene

STEPS = 2


@pytest.fixture(scope="module")
def small() -> tuple[LoadedModel, Asset]:
    name = "tests.tools.small_network:small"
    model = load_model(name, None, torch.float32, torch.device("cpu"))
    views, frames = model.config.views or 1, model.config.frames or 1
    return model, prepare(model, held_out_scene(0, views, frames, 32), seed=0)


class Counted(nn.Module):
    """Counts the images of the calls that it hands on."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.images: list[int] = []

    def forward(self, x: Tensor, *args: Any, **inputs: Any) -> Tensor:
        self.images.append(len(x))
        return self.network(x, *args, **inputs)


@pytest.mark.parametrize(("scale", "branches"), [(1.0, 1), (2.0, 2)])
def test_the_branch_that_no_image_needs_is_not_computed(
    small: tuple[LoadedModel, Asset], scale: float, branches: int
) -> None:
    model, asset = small
    guider, images = VanillaCFG(scale), len(asset.noise)
    plain, ours = Counted(model.network), Counted(model.network)
    network: Any = plain
    wanted = sample_plain(dataclasses.replace(model, network=network), asset, STEPS, guider=guider)
    found = sample_once(ours, asset, STEPS, guider=guider)
    assert plain.images == [2 * images] * STEPS
    assert ours.images == [branches * images] * STEPS
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert branches == 1 or torch.equal(found, wanted)


@pytest.fixture(scope="module")
def turbo(small: tuple[LoadedModel, Asset]) -> Turbo:
    """Sampled once, on the conditional branch alone."""
    torch._dynamo.reset()
    turbo = Turbo(small[0], STEPS, {"plan": "none"}, VanillaCFG(1.0))
    turbo.sample(small[1])
    return turbo


def test_turbo_is_compiled_for_the_branch_that_is_needed(
    small: tuple[LoadedModel, Asset], turbo: Turbo
) -> None:
    model, asset = small
    found = turbo.sample(asset)
    assert turbo.plan is not None
    assert turbo.plan.geometry.batch == 1
    assert torch.equal(found, sample_once(model.network, asset, STEPS, guider=VanillaCFG(1.0)))
