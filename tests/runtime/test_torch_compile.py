"""Sessions on what torch.compile returns, with a backend that makes a runner of each graph."""

from typing import Literal

import pytest
import torch
from torch import nn
from turbo4d.runtime.engine import Engine
from turbo4d.runtime.runner import Runner
from turbo4d.runtime.signature import Signature

from tests.runtime.fake import GEOMETRY, REGIONS, SIGMAS, plan_of
from turbo4d import session


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x, t):
        return x * self.scale + t


class Backend:
    """Engines that run the whole graph; a reused core gives its slot instead."""

    def __init__(self, plan):
        self.plan = plan
        self.runners: list[Runner] = []

    def __call__(self, gm, example_inputs):
        inputs = [node for node in gm.graph.nodes if node.op == "placeholder"]
        kinds: list[Literal["weight", "input"]] = [
            "weight" if isinstance(value, nn.Parameter) else "input" for value in example_inputs
        ]
        order = sorted(range(len(kinds)), key=lambda n: kinds[n] != "weight")
        signature = Signature(
            names=tuple(inputs[n].name for n in order),
            kinds=tuple(kinds[n] for n in order),
            sample=kinds.count("weight"),
            level=None,
            conditioning=(),
            regions=REGIONS,
            model="abc",
            geometry=GEOMETRY,
            weights_bytes=4,
        )

        def build(key) -> Engine:
            class GraphEngine:
                reads, writes = key.reads, key.writes

                def __init__(self):
                    self.key = key

                def __call__(self, args, prologue, slots_in):
                    if slots_in:
                        return [slots_in[0].clone()], []
                    given = dict(zip(order, args, strict=True))
                    outputs = gm(*(given[n] for n in range(len(order))))
                    return outputs, [outputs[0].clone() for _ in self.writes]

            return GraphEngine()

        runner = Runner(signature, build, plan=self.plan)
        self.runners.append(runner)
        return lambda *args: runner(*(args[n] for n in order))


@pytest.fixture
def plan():
    torch._dynamo.reset()
    return plan_of({}, {"core": "reuse"}, {})


def test_a_session_on_a_module_that_was_never_called(plan):
    backend = Backend(plan)
    fast = torch.compile(Denoiser(), backend=backend)
    x = torch.zeros(2)
    with torch.no_grad(), session(fast, steps=3, levels=SIGMAS[:3]) as run:
        outputs = []
        for step in range(3):
            run.step(step)
            outputs.append(fast(x, torch.full((2,), float(step)))[0].item())
    assert outputs == [0, 0, 2]
    assert run.report()["calls_by_variant"] == {"compute+core.w": 1, "core.reuse": 1, "compute": 1}
    assert run.report()["weights_bytes"] == 4
    assert len(backend.runners) == 1


def test_two_compiled_modules_never_share_slots(plan):
    """torch.compile may serve both with one graph, so only their weights tell them apart."""
    backend = Backend(plan)
    one, other = (torch.compile(Denoiser(), backend=backend) for _ in range(2))
    x, t = torch.zeros(2), torch.zeros(2)
    with torch.no_grad(), session(one) as first, session(other) as second:
        for step in range(2):
            first.step(step)
            second.step(step)
            assert one(x, t + 1 + step)[0].item() == 1
            assert other(x, t + 5 + step)[0].item() == 5
    assert first.report()["engine_calls"] == second.report()["engine_calls"] == 2
    assert first.report()["events"] == second.report()["events"] == []


def test_a_compiled_function_takes_whatever_is_called_inside(plan):
    model = Denoiser()
    fast = torch.compile(lambda x, t: model(x, t), backend=Backend(plan))
    with torch.no_grad(), session(fast) as run:
        run.step(0)
        fast(torch.zeros(2), torch.zeros(2))
    assert run.report()["engine_calls"] == 1


def test_a_module_compiled_in_place(plan):
    model = Denoiser()
    model.compile(backend=Backend(plan))
    with torch.no_grad(), session(model) as run:
        run.step(0)
        model(torch.zeros(2), torch.zeros(2))
    assert run.report()["engine_calls"] == 1
