"""A harness learns a sampler's schedule, and samples under plans as sessions do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from turbo4d.compiler.calibrate.fidelity import CEILING_DB, psnr_of_range
from turbo4d.compiler.calibrate.harness import Harness
from turbo4d.compiler.calibrate.moves import groups_of, moves_of
from turbo4d.compiler.errors import CalibrationError
from turbo4d.runtime.action import Action
from turbo4d.runtime.plan import Row

from tests.compiler.calibrate.tiny import (
    IMAGES,
    LEVELS,
    Example,
    example,
    learned,
    network,
    sampler,
    two_streams,
)
from tests.compiler.two_chains import TwoChains

CORE = {"core": Action("reuse")}


def rows(step: int, row: dict[str, Action]) -> dict[str, list[Row]]:
    return {"main": [row if at == step else {} for at in range(len(LEVELS))]}


def test_learning_shows_levels_steps_regions_and_geometry() -> None:
    harness, _ = learned()
    assert harness.levels == pytest.approx(LEVELS)
    assert harness.level_unit == "c_noise"
    assert harness.streams == {"main": (0, 1, 2, 3, 4)}
    assert harness.geometry.as_dict() == {
        "batch": 1,
        "views": 2,
        "frames": 3,
        "height": 4,
        "width": 4,
    }
    assert {"core", "stack.0.chain", "stack.1.camera"} <= {r.name for r in harness.regions}


def test_the_reference_is_the_plain_network_to_the_bit() -> None:
    harness, given = learned()
    with torch.no_grad():
        plain = sampler(network(), given)
    assert torch.equal(harness.reference(given), plain)
    other = example(5)
    with torch.no_grad():
        assert torch.equal(harness.reference(other), sampler(network(), other))
    assert harness.reference(other) is harness.reference(other)


def test_every_move_samples_alike_in_a_session_and_on_graphs_for_all_plans() -> None:
    harness, given = learned()
    moves = moves_of(harness.regions, groups_of(harness.regions))
    taken: list[Row] = [{}, {}, {}, {}, {}]
    for move in moves[1:]:
        for order in (0, move.orders[-1]):
            action = {
                name: Action("reuse", order=order) if order else act
                for name, act in move.actions.items()
            }
            taken[3:] = [action, action]
            plan = harness.plan("p", {"main": taken}, max_age=9, max_variants=9)
            sample = harness.sample(given, plan)
            assert torch.equal(harness.follow(given, plan), sample)
            assert harness.report is not None
            assert not harness.report["events"]
            assert not torch.equal(sample, harness.reference(given))


def test_streams_have_steps_of_their_own() -> None:
    torch._dynamo.reset()
    harness, given = Harness(network(), two_streams), example(0)
    harness.learn(given)
    assert harness.streams == {"cond": (0, 1, 2, 3, 4), "uncond": (0, 2, 4)}
    plan = harness.plan(
        "p",
        {"cond": [{}, CORE, CORE, {}, {}], "uncond": [{}, None, {}, None, CORE]},
        max_age=9,
        max_variants=9,
    )
    sample = harness.sample(given, plan)
    assert torch.equal(harness.follow(given, plan), sample)
    assert 10 < harness.judge(given, sample) < CEILING_DB


def drawing(denoiser: Callable[..., Tensor], given: Example) -> Tensor:
    return sampler(denoiser, (given[0] + torch.randn(given[0].shape) * 1e-3, given[1]))


def ending_otherwise(denoiser: Callable[..., Tensor], given: Example) -> Tensor:
    return sampler(denoiser, given) + torch.randn(given[0].shape)


@pytest.mark.parametrize(
    ("sampled", "said"),
    [
        (drawing, "input 'sample' differs at step 0 of stream 'main' between two runs"),
        (ending_otherwise, "the same network outputs gave another sample"),
    ],
)
def test_a_sampler_that_is_not_deterministic_is_named(sampled: Any, said: str) -> None:
    torch._dynamo.reset()
    harness, given = Harness(network(), sampled), example(0)
    harness.learn(given)
    recording = harness.record(given, (), lambda at, values: None)
    with pytest.raises(CalibrationError, match=said):
        harness.again(given, recording)


def test_an_example_of_another_geometry_is_refused() -> None:
    harness, _ = learned()
    plan = harness.plan("p", rows(2, CORE), max_age=9, max_variants=9)
    with pytest.raises(CalibrationError) as refused:
        harness.sample(example(1, images=2 * IMAGES), plan)
    assert str(refused.value) == (
        "calibration: an example is of geometry batch 2, views 2, frames 3, height 4, width 4; "
        "the first was of batch 1, views 2, frames 3, height 4, width 4. Calibrate each geometry "
        "by itself."
    )


def twice(denoiser: Callable[..., Tensor], given: Example) -> Tensor:
    x, label = given
    for level in LEVELS:
        for _ in range(2):
            x = x + 0.1 * denoiser(x, torch.full((len(x),), level), label=label)
    return x


def test_two_calls_a_step_want_streams() -> None:
    torch._dynamo.reset()
    with pytest.raises(CalibrationError, match=r"from step to step\. Where a step calls"):
        Harness(network(), twice).learn(example(0))


def mixed(denoiser: Callable[..., Tensor], given: Example) -> Tensor:
    x, label = given
    return denoiser(x, torch.arange(len(x)) / 10, label=label)


def test_several_levels_in_one_call_are_refused() -> None:
    torch._dynamo.reset()
    with pytest.raises(CalibrationError, match="'timestep' holds several noise levels"):
        Harness(network(), mixed).learn(example(0))


def test_nothing_is_known_before_learning() -> None:
    harness = Harness(network(), sampler)
    with pytest.raises(CalibrationError, match="the levels are not known yet; call learn first"):
        _ = harness.levels
    with pytest.raises(CalibrationError, match="the network is not known yet; call learn first"):
        _ = harness.regions


class Scaled(TwoChains):
    """Computes with a buffer that no checkpoint keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.gain: Tensor
        self.register_buffer("gain", torch.tensor([1.25]), persistent=False)

    def forward(self, sample: Tensor, timestep: Tensor, label: Tensor) -> Tensor:
        return super().forward(sample * self.gain, timestep, label)


def test_a_buffer_that_no_checkpoint_keeps_is_among_the_weights() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    denoiser = Scaled().eval().requires_grad_(False)
    assert "gain" not in denoiser.state_dict()
    harness, given = Harness(denoiser, sampler), example(0)
    harness.learn(given)
    own = harness.weights_sha256
    fitted = {"step": Action("reuse", mix=(1.0,), sample=0.5)}
    rows: list[Row] = [{}, fitted, {}, {}, {}]
    plan = harness.plan("p", {"main": rows}, max_age=9, max_variants=9)
    for digest, kinds in ((own, []), ("f" * 64, ["other-weights"])):
        harness.sample(given, replace(plan, weights_sha256=digest))
        assert harness.report is not None
        assert [event["kind"] for event in harness.report["events"]] == kinds
    del harness.weights_sha256
    denoiser.gain += 1
    assert harness.weights_sha256 != own


def test_psnr_takes_its_peak_from_the_reference() -> None:
    image, latent = torch.tensor([0.0, 0.5]), torch.tensor([-1.0, 3.0])
    assert psnr_of_range(image, image + 0.1) == pytest.approx(20.0)
    assert psnr_of_range(latent, latent + 0.4) == pytest.approx(20.0)
    assert psnr_of_range(latent, latent) == CEILING_DB
    assert psnr_of_range(latent, latent / 0) == -torch.inf
