"""Any legal plan gives, to the bit, what plain Python gives that carries it out by the modules."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from turbo4d.compiler.analysis import Analysis
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.flops import count_flops
from turbo4d.compiler.specialise import specialise
from turbo4d.runtime.action import BYPASS, REUSE
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.legal_plans import Rows, legal_rows, run_plan
from tests.compiler.plan_interpreter import Interpreter, Values
from tests.compiler.planted import Net, build, costs, products
from tests.compiler.planted_modules import Body, LevelModule
from tests.compiler.test_planted import TREES, bodies, find, has_chain
from tests.support import flat_args

STEPS = 4
Call = tuple[Tensor, Tensor, Tensor]


@cache
def network(body: Body) -> tuple[Net, Call, Analysis]:
    """A planted network, a call of it, and what the compiler finds."""
    net, call = build(body, "BVF" if body.lower else "BFV", side=8)
    return net, call, find(net, call)


def parents(net: Net) -> dict[str, str | None]:
    """Of each planted region."""
    return {one.name: one.parent for one in net.regions}


@st.composite
def plans(draw: st.DrawFn) -> tuple[Body, Rows]:
    """A network and rows that are legal for it."""
    body = draw(st.one_of(st.sampled_from(list(TREES.values())), bodies().filter(has_chain)))
    net = Net(body, "BFV")
    exits = {one.name for one in net.regions if one.form == "exit"}
    return body, draw(legal_rows(parents(net), exits, STEPS))


def calls(call: Call) -> list[Call]:
    """One call per step, each of another sample and level."""
    generator = torch.Generator().manual_seed(2)
    x, t, text = call
    noise = [torch.randn(x.shape, generator=generator).double() for _ in range(STEPS)]
    return [(x + 0.3 * noise[i], t / (1 + i), text) for i in range(STEPS)]


def interpreted(net: Net, rows: Rows, steps: list[Call]) -> list[Tensor]:
    """The outputs of each step by the network's own modules."""
    interpreter = Interpreter(parents(net))
    outputs: list[Tensor] = []
    with torch.no_grad():
        for row, step in zip(rows, steps, strict=True):
            interpreter.begin(row)
            outputs.append(net.run(*step, interpreter))
    return outputs


def check_plan(body: Body, rows: Rows) -> None:
    net, call, analysis = network(body)
    steps = calls(call)
    flat = [flat_args(analysis.capture, step) for step in steps]
    expected = interpreted(net, rows, steps)
    for got, want in zip(run_plan(analysis, rows, flat), expected, strict=True):
        assert torch.equal(got, want), rows


PLANS: list[tuple[str, Rows]] = [
    # An entry that is the exit of the block before it, each with every action.
    ("scm", [{}, {"stack.0.camera": "reuse", "stack.0.motion": "reuse"},
             {"stack.0.camera": "bypass", "stack.0.motion": "reuse", "stack.0.spatial": "reuse"},
             {"stack.0.camera": "reuse", "stack.0.motion": "bypass"}]),
    # A chain recorded while one of its blocks is reused, then reused itself.
    ("scm", [{}, {"stack.0.spatial": "reuse"}, {"stack.0.chain": "reuse"}, {"core": "reuse"}]),
    # A level recorded while a chain in it is bypassed and a level in it reused.
    ("unet", [{}, {"level.2": "reuse", "down.1.0.chain": "bypass"}, {"level.1": "reuse"},
              {"level.2": "reuse", "up.0.0.chain": "reuse", "down.0.0.camera": "reuse"}]),
    # A level that takes the last reader from what comes before it.
    ("skipless", [{}, {"level.2": "reuse"}, {"level.1": "reuse"}, {"middle.0.chain": "reuse"}]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rows"), PLANS, ids=range(len(PLANS)))
def test_a_plan_is_what_the_modules_do(name: str, rows: Rows) -> None:
    check_plan(TREES[name], rows)


def test_exact_passes_change_no_more_than_rounding_under_a_plan() -> None:
    for name, rows in PLANS[::2]:
        net, call, analysis = network(TREES[name])
        steps = calls(call)
        flat = [flat_args(analysis.capture, step) for step in steps]
        expected = interpreted(net, rows, steps)
        for got, want in zip(run_plan(analysis, rows, flat, exact=True), expected, strict=True):
            torch.testing.assert_close(got, want, atol=1e-9, rtol=1e-9)


@settings(max_examples=8, deadline=None)
@given(plans())
def test_any_legal_plan_is_what_the_modules_do(drawn: tuple[Body, Rows]) -> None:
    check_plan(*drawn)


class Row(nn.Module):
    """One step of a plan as a module: slots come in after the call, and go out after the result."""

    def __init__(self, net: Net, row: dict[str, str], writes: tuple[str, ...]) -> None:
        super().__init__()
        self.net, self.row, self.writes = net, row, writes

    def forward(self, x: Tensor, t: Tensor, text: Tensor, slots: Values) -> Values:
        interpreter = Interpreter(parents(self.net))
        reads = [name for name, action in self.row.items() if action == "reuse"]
        interpreter.slots = {n: (slot,) for n, slot in zip(reads, slots, strict=True)}
        interpreter.begin(self.row)
        output = self.net.run(x, t, text, interpreter)
        return (output, *(value for name in self.writes for value in interpreter.written(name)))


def operators(graph: torch.fx.Graph) -> Counter[str]:
    """How often each operator is called."""
    return Counter(str(node.target) for node in graph.nodes if node.op == "call_function")


WRITTEN = ("level.1", "middle.chain", "down.1.0.chain", "up.1.0.camera")


def cells(name: str, *chosen: str) -> list[tuple[str, str, str]]:
    """Some regions of a network with every action that they take."""
    net = Net(TREES[name], "BFV")
    return [
        (name, one.name, action)
        for one in net.regions
        if one.name in chosen
        for action in ("reuse", "bypass", "write")
        if action == "reuse"
        or (action == "bypass" and one.form != "exit")
        or (action == "write" and one.name in WRITTEN)
    ]


CELLS = [
    *cells("unet", "core", "level.1", "level.2", "down.1.0.chain", "middle.chain"),
    *cells("unet", "down.1.0.spatial", "up.1.0.camera", "down.0.0.motion"),
    *cells("around_convolutions", "stack.0.chain"),
]


@pytest.mark.parametrize(("name", "region", "action"), CELLS)
def test_the_cost_is_gone(name: str, region: str, action: str) -> None:
    """As many calls, operator by operator, as the modules make; and the products' own formulas."""
    net, call, analysis = network(TREES[name])
    one = next(one for one in net.regions if one.name == region)
    row = {} if action == "write" else {region: action}
    taken = {"reuse": REUSE, "bypass": BYPASS}
    writes = (region,) if action == "write" else ()
    variant = specialise(
        analysis, VariantKey(tuple((n, taken[a]) for n, a in row.items()), writes, exact=False)
    )
    held = next(r for r in analysis.regions if r.name == region).ports[0]
    with torch.no_grad():
        module = Row(net, row, writes).eval()
        interpreter = Interpreter(parents(net))
        interpreter.begin({})
        net.run(*call, interpreter)
    slots = interpreter.written(region) if action == "reuse" else ()
    reference = capture_export(module, (*call, slots)).module.graph
    got, wanted = operators(variant.module.graph), operators(reference)
    for shapes in ("aten.reshape.default", "aten.permute.default"):
        # A slot lies in the layout of the graph's region, which may be turned against the module's.
        del got[shapes], wanted[shapes]
    assert got == wanted, held
    spent = costs(net, call)
    gone = set() if action == "write" else set(products(one.module))
    if one.form == "exit" and gone:
        gone |= {net.first} if region == "core" else {_down(net, one.module)}
        gone -= {net.last}
    left = sum(cost for module, cost in spent.items() if module not in gone)
    assert sum(count_flops(variant.module.graph).values()) == left
    assert sum(spent.values()) > left or action == "write"


def _down(net: Net, level: nn.Module) -> nn.Module:
    """The downsample before a level, which only the level reads."""
    assert isinstance(level, LevelModule)
    return next(m.down for m in net.modules() if getattr(m, "lower", None) is level)  # type: ignore[return-value]
