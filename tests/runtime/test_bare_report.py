"""`turbo4d.report`: what calls outside sessions did, asked of the denoiser itself."""

import threading

import pytest
import torch
from torch import nn
from turbo4d.runtime.errors import OptionError
from turbo4d.runtime.passed_on import PassedOn

import turbo4d
from tests.runtime.fake import SIGMAS, make_args, runner


def test_what_a_runner_ran_is_told():
    fast, _ = runner("fast")
    assert turbo4d.report(fast)["engine_calls"] == 0
    for level in (*SIGMAS, *SIGMAS):
        fast(*make_args(level))
    assert turbo4d.report(fast) == fast.report()
    assert turbo4d.report(fast)["calls_by_variant"]["core.reuse"] > 0


def test_another_denoiser_and_another_thread_have_their_own():
    fast, _ = runner("fast")
    other, _ = runner("fast")
    fast(*make_args())
    assert turbo4d.report(other)["engine_calls"] == 0
    told = []
    thread = threading.Thread(target=lambda: told.append(turbo4d.report(fast)))
    thread.start()
    thread.join()
    assert [report["engine_calls"] for report in told] == [0]


class Own(nn.Module):
    """Called nowhere: the runners are handed its weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))


def test_a_module_is_told_by_its_weights():
    """Torch may have compiled it for two shapes: their calls are one report."""
    runners = [runner("fast")[0] for _ in range(2)]
    module, stranger = Own(), Own()
    for fast in runners:
        with torch.no_grad():
            fast(module.weight, *make_args(4.0)[1:])
    report = turbo4d.report(module)
    assert report["calls_by_variant"] == {"compute": 2}
    assert [event["kind"] for event in report["events"]] == ["sync", "sync"]
    assert turbo4d.report(stranger)["engine_calls"] == 0


def test_graphs_that_were_left_as_they_are_are_told():
    module, stranger = Own(), Own()
    left = PassedOn(lambda weight, x: [x * weight], [0], "piece 'f' runs as it is: no attention.")
    assert turbo4d.report(module)["events"] == []
    left(module.weight, torch.ones(1))
    assert [event["message"] for event in turbo4d.report(module)["events"]] == [left.reason]
    assert turbo4d.report(stranger)["events"] == []


def test_what_is_no_denoiser_is_refused():
    with pytest.raises(OptionError, match=r"^report: int is no denoiser; it is not callable\.$"):
        turbo4d.report(3)
