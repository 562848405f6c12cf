"""Runs alternate, their order turns round, and a result that differs is noticed."""

from itertools import count

import torch
from turbo4d.tools.timing import Timing, alternate

CPU = torch.device("cpu")


def test_runs_alternate_and_turn_round():
    ran = []
    jobs = {name: lambda name=name: ran.append(name) or torch.zeros(1) for name in ("a", "b")}
    found = alternate(jobs, 3, CPU, say=lambda text: None)
    assert ran == ["a", "b", "b", "a", "a", "b"]
    assert all(len(one.timing.seconds) == 3 and one.repeats for one in found.values())


def test_a_result_that_changes_is_noticed():
    numbers = count()
    jobs = {"a": lambda: torch.tensor(next(numbers))}
    found = alternate(jobs, 2, CPU, say=lambda text: None)["a"]
    assert not found.repeats
    assert found.result == 0


def test_median_and_spread():
    timing = Timing((3.0, 1.0, 2.5))
    assert (timing.median, timing.spread) == (2.5, (1.0, 3.0))
    assert str(timing) == "2.5 s (1 to 3)"
