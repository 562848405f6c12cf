"""Exact plans through torch.compile: one prologue a session, true to the plain module."""

from __future__ import annotations

import pytest
import torch
from turbo4d.runtime.errors import OptionError

import turbo4d
from tests.compiler.denoisers import sv4d
from tests.compiler.four_steps import SIGMAS, sample

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


@pytest.mark.parametrize("merge", [False, True])
def test_a_session_runs_the_prologue_once_and_is_true_to_the_module(merge: bool) -> None:
    model, call = sv4d("mini")
    options = {"plan": "exact", "merge_projections": merge}
    fast = torch.compile(model, backend="turbo4d", fullgraph=True, options=options)
    for scale in (1.0, 0.5):  # another conditioning, another session
        now = {**call, "context": call["context"] * scale}
        with turbo4d.session(fast, steps=4, levels=SIGMAS) as run:
            outputs = sample(fast, now, run)
        assert run.report()["calls_by_variant"]["prologue"] == 1
        for got, expected in zip(outputs, sample(model, now), strict=True):
            assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_an_input_that_changes_is_declared() -> None:
    """With y declared to change, each step's own is read in one session."""
    model, call = sv4d("mini")
    options = {"plan": "exact", "invariant": {"y": False, "x": "4:8"}}
    fast = torch.compile(model, backend="turbo4d", fullgraph=True, options=options)
    with turbo4d.session(fast, steps=4, levels=SIGMAS) as run:
        for step in range(4):
            run.step(step)
            changed = call["x"].clone()
            changed[:, :4] *= step + 1
            now = {**call, "x": changed, "y": call["y"] + step}
            got, expected = fast(**now), model(**now)
            assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert run.report()["calls_by_variant"]["prologue"] == 1


@pytest.mark.parametrize("plan", ["none", "exact"])
def test_a_name_that_is_no_input_is_refused(plan: str) -> None:
    model, call = sv4d("mini")
    options = {"plan": plan, "invariant": {"z": "4:8"}}
    fast = torch.compile(model, backend="turbo4d", fullgraph=True, options=options)
    with pytest.raises(OptionError, match=r"^option 'invariant' names 'z'; the model's inputs are"):
        fast(**call)
