"""A plan that extrapolates, in a session, is to the bit what plain Python does by the modules."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from turbo4d.compiler.backend import build_engine, signature_of
from turbo4d.compiler.lower import get_lowering
from turbo4d.runtime.action import Action
from turbo4d.runtime.engine import Engine
from turbo4d.runtime.extrapolation import predict, weights
from turbo4d.runtime.plan import Plan, VariantKey
from turbo4d.runtime.runner import Runner

from tests.compiler.plan_interpreter import Interpreter, Values
from tests.compiler.planted import Net
from tests.compiler.test_planted import TREES
from tests.compiler.test_planted_plans import network, parents
from tests.support import flat_args
from turbo4d import session

SIGMAS = [700.0, 300.0, 40.0, 9.0, 2.0, 1.5, 0.3, 0.2]
Rows = list[dict[str, str]]
PLANS: list[tuple[str, Rows]] = [
    ("scm", [{}, {}, {"stack.0.chain": "reuse(1)"}, {"core": "reuse(1)"}, {},
             {"stack.0.camera": "reuse(2)", "stack.0.motion": "reuse"}, {"core": "reuse(2)"},
             {"core": "reuse(1)"}]),
    ("unet", [{}, {"level.2": "reuse"}, {"down.0.0.chain": "bypass"}, {"level.2": "reuse(1)"},
              {"level.1": "reuse(2)"}, {"core": "reuse(3)"}, {},
              {"level.1": "reuse(1)", "down.0.0.camera": "reuse(2)"}]),
]  # fmt: skip


class Extrapolating(Interpreter):
    """Keeps every value with its level; gives the modules what is made of the last ones."""

    def __init__(self, net: Net) -> None:
        super().__init__(parents(net))
        self.history: dict[str, list[tuple[float, Values]]] = {}
        self.u = math.inf

    def step(self, row: dict[str, str], u: float) -> None:
        self.slots = {}
        self.begin({})
        for name, value in self.slots.items():
            self.history.setdefault(name, []).append((self.u, value))
        self.u = u
        for name, action in row.items():
            if (match := re.fullmatch(r"reuse(?:\((\d)\))?", action)) is not None:
                past = self.history[name][-1 - int(match[1] or 0) :]
                mix = weights(tuple(at for at, _ in past), u)
                ports = zip(*(value for _, value in past), strict=True)
                self.slots[name] = tuple(predict(port, mix) for port in ports)
        self.begin({name: action.partition("(")[0] for name, action in row.items()})


def calls(call: tuple[Tensor, Tensor, Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    x, t, text = call
    noise = [torch.randn(x.shape, generator=generator).double() for _ in SIGMAS]
    return [(x + 0.1 * each, t / (1 + i), text) for i, each in enumerate(noise)]


@pytest.mark.parametrize(("name", "rows"), PLANS, ids=[name for name, _ in PLANS])
def test_a_session_extrapolates_what_the_modules_gave(name: str, rows: Rows) -> None:
    net, call, analysis = network(TREES[name])
    steps = calls(call)
    interpreter, expected = Extrapolating(net), list[Tensor]()
    with torch.no_grad():
        for row, sigma, step in zip(rows, SIGMAS, steps, strict=True):
            interpreter.step(row, math.log(sigma))
            expected.append(net.run(*step, interpreter))
    built: list[VariantKey] = []

    def build(key: VariantKey) -> Engine:
        built.append(key)
        return build_engine(analysis, get_lowering("eager"), key)

    signature = signature_of(analysis)
    plan = Plan(
        "p", signature.model, signature.geometry, tuple(SIGMAS), "sigma",
        {"main": tuple({n: Action.parse(act) for n, act in row.items()} for row in rows)},
        max_age=8, max_variants=8, exact=False,
    )  # fmt: skip
    fast, outputs = Runner(signature, build, plan=plan), list[Any]()
    with torch.no_grad(), session(fast) as run:
        for number, step in enumerate(steps):
            run.step(number)
            outputs.append(fast(*flat_args(analysis.capture, step))[0])
    for number, (got, wanted) in enumerate(zip(outputs, expected, strict=True)):
        assert torch.equal(got, wanted), number
    report, proof = run.report(), plan.check(signature.regions)
    assert report["events"] == []
    assert report["cache_peak_bytes"] == proof.peak_bytes
    assert len(built) == len(proof.variants) == report["variants"]
    assert [a for key in built for _, a in key.actions if a.order] == []
    sizes = {region.name: region.slot_bytes for region in signature.regions}
    assert max(proof.depth.values()) == 4 - (name == "scm")
    assert proof.peak_bytes >= max(sizes[n] * depth for n, depth in proof.depth.items())
