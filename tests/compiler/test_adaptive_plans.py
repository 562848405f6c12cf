"""Adaptive runs of a real graph: each is, to the bit, the static plan its decisions spell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from turbo4d.compiler.analysis import analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.runtime.action import REUSE
from turbo4d.runtime.plan import Plan

import turbo4d
from tests.compiler.foreign import build

SIGMAS = (700.0, 90.0, 20.0, 8.0, 4.0, 2.0, 1.0, 0.6, 0.3, 0.1)
ROWS: dict[str, dict[str, Any]] = {"C": {}, "K": {"core": REUSE}, "L": {"level.1": REUSE}}
PLANNED = "CKKCCLCKKK"


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def plan_of(analysis: Any, letters: str) -> Plan:
    rows = tuple(ROWS[letter] for letter in letters)
    return Plan(
        "p", analysis.capture.fingerprint, analysis.geometry, SIGMAS, "sigma", {"main": rows},
        max_age=9, max_variants=8,
    )  # fmt: skip


def test_an_adaptive_run_is_the_static_plan_that_it_decided_for() -> None:
    module, call = build("video_unet", torch.float64)
    analysis = analyse(capture_export(module, (), call))
    assert {"core", "level.1"} <= {region.name for region in analysis.regions}
    torch._dynamo.reset()
    fast = torch.compile(module, backend="turbo4d", fullgraph=True)
    samples = [torch.randn_like(call["sample"]) for _ in SIGMAS]  # type: ignore[arg-type]

    def run(plan: Plan, adaptive: Any) -> tuple[list[Tensor], Any]:
        with turbo4d.session(fast, plan=plan, adaptive=adaptive) as session:
            outputs: list[Tensor] = []
            for step, sample in enumerate(samples):
                session.step(step)
                outputs.append(fast(**{**call, "sample": sample}))
            return outputs, session.report()

    # Random weights and samples change far more than a trained network does: all is tightened.
    outputs, report = run(plan_of(analysis, PLANNED), True)
    letters = "".join(
        {"compute": "C", "core": "K", "level": "L"}[each["variant"].replace("+", ".").split(".")[0]]
        for each in report["decisions"]
    )
    assert letters != PLANNED
    assert sum(report["calls_by_variant"].values()) == len(SIGMAS) + 1  # and the prologue
    statically, _ = run(plan_of(analysis, letters), False)
    assert all(torch.equal(a, b) for a, b in zip(outputs, statically, strict=True))
    again, same = run(plan_of(analysis, PLANNED), True)
    assert all(torch.equal(a, b) for a, b in zip(outputs, again, strict=True))
    assert same["decisions"] == report["decisions"]
