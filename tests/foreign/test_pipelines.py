"""A whole pipeline of `diffusers` with its network compiled: Wan's, which guides call by call."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import turbo4d

diffusers = pytest.importorskip("diffusers")

from tests.foreign.pipelines import called, failing, inputs, interrupting, wan  # noqa: E402

STEPS = 10
# As README has them.
LINES = """
pipe.transformer = torch.compile(pipe.transformer, backend="turbo4d")  # or pipe.unet
video = pipe(**inputs)  # the first run computes everything and learns the noise levels
video = pipe(**inputs)  # later ones follow the plan: any prompt and seed, guided or not
print(turbo4d.report(pipe.transformer)["events"])  # why, where a run did not
"""
README = Path(__file__).parents[2] / "README.md"
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    yield wan(monkeypatch, diffusers.UniPCMultistepScheduler(**FLOW))
    torch.compiler.reset()


def psnr_db(found: Tensor, wanted: Tensor) -> float:
    peak = float(wanted.max() - wanted.min())
    error = float((found - wanted).square().mean())
    return 10 * math.log10(peak**2 / error)  # an error if nothing was reused


def kinds(pipe: Any) -> set[Any]:
    return {event["kind"] for event in turbo4d.report(pipe.transformer)["events"]}


def test_plan_none_is_the_plain_pipeline_to_the_bit(pipe: Any) -> None:
    wanted = called(pipe, steps=3)
    pipe.transformer = torch.compile(pipe.transformer, backend="turbo4d", options={"plan": "none"})
    assert torch.equal(called(pipe, steps=3), wanted)


def test_the_first_run_learns_and_later_ones_follow_the_plan(pipe: Any) -> None:
    wanted = [called(pipe, prompt=prompt) for prompt in range(2)]
    shorter = called(pipe, steps=6)
    named: dict[str, Any] = {"pipe": pipe, "inputs": inputs(), "torch": torch, "turbo4d": turbo4d}
    assert LINES in README.read_text("utf-8")
    exec(LINES, named)
    assert psnr_db(named["video"][0], wanted[0]) > 40
    assert psnr_db(called(pipe, prompt=1), wanted[1]) > 40
    report = turbo4d.report(pipe.transformer)
    assert report["engine_calls"] == 3 * 2 * STEPS  # two branches
    reused = sum(count for name, count in report["calls_by_variant"].items() if "reuse" in name)
    assert reused >= 2 * 2 * STEPS / 3
    assert report["calls_by_variant"]["prologue"] == 3 * 2
    assert kinds(pipe) == {"sync"}

    # Stopped by its user, by an error, sampled in fewer steps: nothing of one run is in another.
    called(pipe, callback_on_step_end=interrupting(after=4))
    with pytest.raises(ZeroDivisionError):
        called(pipe, callback_on_step_end=failing(at=3))
    assert psnr_db(called(pipe, prompt=1), wanted[1]) > 40
    assert kinds(pipe) == {"sync"}
    torch.testing.assert_close(called(pipe, steps=6), shorter, atol=1e-4, rtol=0)
    assert kinds(pipe) == {"sync", "unknown-level"}
    assert psnr_db(called(pipe, prompt=1), wanted[1]) > 40
