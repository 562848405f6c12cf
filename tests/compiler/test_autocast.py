"""Under autocast: the casts are in the graph, and every bit is the module's."""

import pytest
import torch
from torch import Tensor, nn
from turbo4d.compiler.autocast import write_casts
from turbo4d.compiler.capture import capture_compiled
from turbo4d.compiler.compat import trace
from turbo4d.compiler.errors import CaptureError

from tests.compiler.small_denoiser import sample, small
from turbo4d import session

pytestmark = pytest.mark.usefixtures("fresh_dynamo")
LEVELS = [14.6 / 2**step for step in range(8)]


def call(step: int) -> tuple[Tensor, Tensor]:
    return sample(step), torch.full((2,), LEVELS[step])


def test_a_loop_under_autocast() -> None:
    model = small()
    fast = torch.compile(model, backend="turbo4d", fullgraph=True, options={"lowering": "eager"})
    with torch.autocast("cpu", torch.bfloat16):
        wanted = [model(*call(step)) for step in range(8)]
        for plan in ("none", "exact", "fast"):
            with session(fast, levels=LEVELS, plan=plan) as run:
                outputs = []
                for step in range(8):
                    run.step(step)
                    outputs.append(fast(*call(step)))
            if plan == "none":
                assert all(map(torch.equal, outputs, wanted))
            assert {output.dtype for output in outputs} == {wanted[0].dtype}
            for output, other in zip(outputs, wanted, strict=True):
                close = 1e-2 if plan == "exact" else 1.0
                torch.testing.assert_close(output, other, rtol=close, atol=close)
        assert any("reuse" in name for name in run.report()["calls_by_variant"])
    # Out of it, the same module is compiled for what it is there.
    with session(fast, levels=LEVELS, plan="none") as run:
        run.step(0)
        assert torch.equal(fast(*call(0)), model(*call(0)))


@pytest.mark.parametrize("around", [False, True])
def test_an_autocast_within_the_forward(around: bool) -> None:
    model = small(autocasts=torch.bfloat16)
    fast = torch.compile(model, backend="turbo4d", fullgraph=True, options={"plan": "none"})
    with torch.autocast("cpu", torch.float16, enabled=around):
        assert torch.equal(fast(*call(0)), model(*call(0)))


def test_one_that_is_left_for_a_while() -> None:
    class Left(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
            self.norm = nn.RMSNorm(4, elementwise_affine=False)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.one(x))
            with torch.autocast("cpu", enabled=False):
                y = y.float() @ self.other.weight
            return self.other(y).softmax(-1) + self.one(y)

    found = []

    def door(gm, inputs):
        found.append(capture_compiled(gm, inputs))
        return gm

    model, x = Left().eval(), torch.randn(3, 4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.compile(model, backend=door, fullgraph=True)(x)
        wanted = model(x)
    [capture] = found
    weights = dict(model.named_parameters())
    given = [weights.get(row.target, x) for row in capture.table]
    assert torch.equal(capture.module(*given)[0], wanted)
    casts = [n for n in capture.module.graph.nodes if n.target is torch.ops.aten._to_copy.default]
    assert len({(n.args[0], n.kwargs["dtype"]) for n in casts}) == len(casts)


def test_a_graph_without_any_is_left_as_it_is() -> None:
    found = []

    def door(gm, inputs):
        traced = trace(gm, inputs).module
        before = traced.code
        write_casts(traced)
        found.append(traced.code == before)
        return gm

    with torch.no_grad():
        torch.compile(small(), backend=door, fullgraph=True)(*call(0))
    assert found == [True]


def test_what_no_cast_explains_is_refused() -> None:
    """A dtype that the graph says and its calls do not give."""

    def door(gm, inputs):
        traced = trace(gm, inputs).module
        [node] = traced.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
        node.meta["val"] = node.meta["val"].double()
        with pytest.raises(CaptureError, match="under autocast, which no cast of what it takes"):
            write_casts(traced)
        return gm

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.compile(nn.Linear(2, 2).eval(), backend=door, fullgraph=True)(torch.ones(1, 2))
