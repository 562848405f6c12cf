"""Options `conditional` and `lowering="onnxruntime"` through the front door."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import turbo4d
from tests.compiler.denoisers import sv4d
from tests.compiler.foreign import build

SIGMAS = torch.logspace(2, -1, 8).tolist()


pytestmark = pytest.mark.usefixtures("fresh_dynamo")


def sample(**options: Any) -> tuple[list[Tensor], dict[str, int]]:
    """The outputs of a run of eight steps, and its calls by variant."""
    model, call = sv4d("mini")
    torch._dynamo.reset()
    chosen = {"plan": "balanced", "regions": ["core", "chain"], **options}
    fast = torch.compile(model, backend="turbo4d", fullgraph=True, options=chosen)
    outputs: list[Tensor] = []
    with turbo4d.session(fast, steps=len(SIGMAS), levels=SIGMAS) as run:
        for step, sigma in enumerate(SIGMAS):
            run.step(step)
            now = {**call, "timesteps": torch.full_like(call["timesteps"], sigma)}
            outputs.append(fast(**now).clone())
    return outputs, run.report()["calls_by_variant"]


def test_a_session_is_the_same_from_one_engine_and_under_onnx_runtime() -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    wanted, calls = sample()
    assert len(calls) > 3
    for options in ({}, {"lowering": "onnxruntime"}):
        found, made = sample(conditional=True, **options)
        assert made == calls
        for a, b in zip(wanted, found, strict=True):
            assert (a - b).norm() <= 1e-5 * a.norm()


def test_a_bare_loop_finds_its_plan_on_the_same_engine() -> None:
    """The first run knows no plan, and its engine holds no region; the second builds it anew."""
    model, call = build("video_unet")
    level = call["timestep"]
    assert isinstance(level, Tensor)
    runs: list[list[Tensor]] = []
    for conditional in (False, True):
        torch._dynamo.reset()
        options = {"plan": "fast", "conditional": conditional, "levels": SIGMAS}
        fast = torch.compile(model, backend="turbo4d", fullgraph=True, options=options)
        outputs: list[Tensor] = []
        for _ in range(2):
            for sigma in SIGMAS:
                outputs.append(fast(**{**call, "timestep": torch.full_like(level, sigma)}).clone())
        runs.append(outputs)
    for a, b in zip(*runs, strict=True):
        assert (a - b).norm() <= 1e-5 * a.norm()
