"""A fitted plan says which weights it was fitted to; a session on others notes it."""

from __future__ import annotations

import torch
from turbo4d.compiler.calibrate.fitter import Fitter
from turbo4d.compiler.calibrate.state import State
from turbo4d.runtime.action import REUSE

import turbo4d
from tests.compiler.calibrate.tiny import LEVELS, learned, network, sampler


def fitted_plan():
    harness, given = learned()
    rows = {"main": ({}, {"step": REUSE}, {"step": REUSE}, {}, {"step": REUSE})}
    plan = harness.plan("p", rows, max_age=9, max_variants=9)
    state = State(None, {})
    return Fitter(harness, [given], state).fit("p", plan), given


def events_of(module, plan, given) -> list[str]:
    torch._dynamo.reset()
    fast = torch.compile(module, backend="turbo4d", options={"plan": plan})
    with turbo4d.session(fast, levels=LEVELS) as run:
        steps = iter(range(len(LEVELS)))

        def denoiser(*args, **kwargs):
            run.step(next(steps))
            return fast(*args, **kwargs)

        sampler(denoiser, given)
    return [str(each["kind"]) for each in run.report()["events"]]


def test_the_plan_names_the_weights_and_other_weights_are_an_event() -> None:
    plan, given = fitted_plan()
    assert len(plan.weights_sha256) == 64
    assert "other-weights" not in events_of(network(), plan, given)
    other = network()
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    assert events_of(other, plan, given).count("other-weights") == 1
