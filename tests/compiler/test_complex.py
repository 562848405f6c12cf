"""Complex numbers: inside a graph they are numbers like others; a sample of them is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from turbo4d.compiler.errors import CaptureError

from tests.compiler import foreign
from turbo4d import session

SIGMAS = torch.logspace(2, -1, 8).tolist()


class Turning(foreign.Attention):
    """Queries and keys turned by their place, as complex numbers that are kept in a buffer."""

    turns: Tensor

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        groups, length, channels = x.shape
        q = self.q(x).view(groups, length, self.heads, -1).transpose(1, 2)
        kv = self.kv(x if context is None else context)
        kv = kv.unflatten(-1, (2, self.heads, channels // self.heads)).permute(2, 0, 3, 1, 4)
        k, v = kv.unbind(0)
        y = F.scaled_dot_product_attention(self.turned(q), self.turned(k), v)
        return self.out(y.transpose(1, 2).contiguous().view(groups, length, channels))

    def turned(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.contiguous().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * self.turns[: x.shape[2]]).flatten(-2)


def turning() -> tuple[nn.Module, dict[str, Any]]:
    model, call = foreign.build("multi_view")
    for module in model.modules():
        if isinstance(module, foreign.Attention):
            module.__class__ = Turning
            width = module.q.weight.shape[0] // module.heads // 2
            angles = 0.3 * torch.arange(64)[:, None] / torch.arange(1, width + 1)
            module.register_buffer("turns", torch.polar(torch.ones_like(angles), angles))
    return model, call


pytestmark = pytest.mark.usefixtures("fresh_dynamo")


def compiled(model: nn.Module, **options: Any) -> Callable[..., Any]:
    return torch.compile(model, backend="turbo4d", fullgraph=True, options=options)


def test_rotation_by_complex_numbers_is_the_plain_module_to_the_bit() -> None:
    model, call = turning()
    assert not torch.allclose(model(**call), foreign.build("multi_view")[0](**call), atol=1e-4)
    assert torch.equal(compiled(model, plan="none")(**call), model(**call))
    torch._dynamo.reset()
    fast = compiled(model, plan="fast")
    with session(fast, levels=SIGMAS) as run:
        for step, sigma in enumerate(SIGMAS):
            run.step(step)
            now = {**call, "sigma": torch.full_like(call["sigma"], sigma)}
            output = fast(**now)
            if step == 0:
                torch.testing.assert_close(output, model(**now), atol=1e-5, rtol=1e-5)
    report = run.report()
    assert report["events"] == []
    assert sum("reuse" in name for name in report["calls_by_variant"]) > 0


class Halves(nn.Module):
    """Denoises the real and the imaginary part."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.call = foreign.build("multi_view")

    def forward(self, x: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        parts = [self.inner(part, sigma, text) for part in (x.real, x.imag)]
        return torch.complex(*parts)


def test_a_complex_sample_is_refused_by_name() -> None:
    model = Halves().eval()
    call: Any = {**model.call, "x": torch.complex(model.call["x"], -model.call["x"])}  # type: ignore[arg-type]
    text = (
        "the sample 'x' is of complex64; wanted real numbers. Hand it over as torch.view_as_real "
        "gives it, or set plan='none'."
    )
    with pytest.raises(CaptureError, match=f"^{re.escape(text)}"):
        compiled(model, plan="exact")(**call)
    torch._dynamo.reset()
    assert torch.equal(compiled(model, plan="none")(**call), model(**call))
