"""Blocks that are handed to torch.utils.checkpoint are a part of the graph."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from turbo4d.compiler.capture import capture_compiled

from tests.compiler.small_denoiser import Small, sample, small
from turbo4d import session

pytestmark = pytest.mark.usefixtures("fresh_dynamo")
LEVELS = [14.6 / 2**step for step in range(8)]


def test_plan_none_is_the_module_to_the_bit_and_regions_are_found() -> None:
    model, plain = small(checkpoints=True), small()
    fast = torch.compile(model, backend="turbo4d", fullgraph=True, options={"lowering": "eager"})
    with torch.no_grad(), session(fast, levels=LEVELS, plan="none") as run:
        for step, level in enumerate(LEVELS):
            run.step(step)
            x, t = sample(step), torch.full((2,), level)
            assert torch.equal(fast(x, t), plain(x, t))
    with torch.no_grad(), session(fast, levels=LEVELS, plan="fast") as run:
        for step, level in enumerate(LEVELS):
            run.step(step)
            fast(sample(step), torch.full((2,), level))
    assert any("reuse" in name for name in run.report()["calls_by_variant"])


def test_one_in_another_and_what_a_body_gives_twice() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner: Small = small()

        def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = checkpoint(self.inner.first, x, use_reentrant=False)
            return y.sin(), y

        def forward(self, x: Tensor) -> Tensor:
            one, other = checkpoint(self.both, x, use_reentrant=False)
            return one + other

    found = []

    def door(gm, inputs):
        found.append(capture_compiled(gm, inputs))
        return gm

    model = Nested().eval()
    torch.compile(model, backend=door, fullgraph=True)(sample())
    [capture] = found
    assert [row.target for row in capture.table if row.kind == "weight"] == [
        "inner.first.bias", "inner.first.weight",
    ]  # fmt: skip
    given = [model.inner.first.bias, model.inner.first.weight, sample()]
    assert torch.equal(capture.module(*given)[0], model(sample()))
