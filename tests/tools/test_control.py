"""The control gets every step that fits the turbo latency, and no more."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from turbo4d.tools import control, timing
from turbo4d.tools.rounds import Rounds

ASSET = cast(Any, SimpleNamespace(scene=SimpleNamespace(name="scene 0")))
NO_MODEL = cast(Any, None)


@pytest.mark.parametrize(
    ("turbo_s", "steps"), [(1.0, 10), (0.99, 9), (0.5, 5), (0.01, 1), (4.0, 20)]
)
def test_the_control_gets_the_steps_that_fit(turbo_s, steps):
    assert control.fitting_steps(turbo_s, baseline_s=2.0, steps=20) == steps


@pytest.mark.parametrize(("guess", "settled"), [(3, 5), (5, 5), (8, 5)])
def test_a_guess_is_corrected_both_ways(guess, settled, monkeypatch):
    now = 0.0
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now))

    def take(steps):
        nonlocal now
        now += steps
        return torch.zeros(1)

    def jobs(model, count, asset):
        return {solver: lambda: take(count) for solver in control.SOLVERS}

    monkeypatch.setattr(control, "control_jobs", jobs)
    rounds = Rounds([ASSET], 3, torch.device("cpu"), say=lambda text: None)
    sides = {"baseline": lambda: take(20), "turbo": lambda: take(5.5)}
    rounds.run(lambda asset: {**sides, **jobs(None, guess, asset)})
    assert control.settle(rounds, NO_MODEL, guess, 20) == settled
