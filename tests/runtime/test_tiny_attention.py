"""Attention over few tokens: the operator, and the kernel under Triton's interpreter."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from turbo4d.runtime import tiny_attention as operator
from turbo4d.runtime.tiny_attention import MAX_TOKENS, missing

tiny_attention: Any = operator.tiny_attention
# (outer groups, inner groups, tokens, heads, head): views and frames of the family's networks.
SHAPES = [(2, 9, 8, 2, 16), (4, 3, 5, 1, 64), (1, 7, 4, 3, 32), (3, 1, 16, 2, 24), (1, 1, 1, 1, 8)]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SUMS = 2e-6  # what sums of a few float32 numbers near one are off by, in any order


def reference(given: Sequence[Tensor], scale: float) -> Tensor:
    q, k, v = (each.double().transpose(2, 3) for each in given)
    return functional.scaled_dot_product_attention(q, k, v, scale=scale).transpose(2, 3)


def assert_rounded(found: Tensor, wanted: Tensor, units: float) -> None:
    """Each number is the wanted one, rounded once: off by so many units of its last place."""
    bound = wanted.abs() * torch.finfo(found.dtype).eps * units + SUMS
    assert ((found.double() - wanted).abs() <= bound).all()


def drawn(shape, dtype=torch.float32, layout="images") -> list[Tensor]:
    """Three tensors; by "images" the tokens of a group lie apart, as views of an image axis do."""
    groups, pixels, tokens, heads, head = shape
    generator = torch.Generator().manual_seed(sum(shape))

    def one() -> Tensor:
        if layout == "groups":
            return torch.randn(shape, generator=generator).to(dtype)
        lying = torch.randn((groups, tokens, pixels, heads * head), generator=generator).to(dtype)
        return lying.unflatten(-1, (heads, head)).transpose(1, 2)

    if layout != "merged":
        return [one() for _ in range(3)]
    together = torch.randn((groups, tokens, pixels, 3 * heads * head), generator=generator)
    parts = together.to(dtype).chunk(3, dim=-1)
    return [part.unflatten(-1, (heads, head)).transpose(1, 2) for part in parts]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_operator_on_the_cpu_is_exact_to_rounding(shape, dtype):
    for layout in ("images", "groups", "merged"):
        given = drawn(shape, dtype, layout)
        found = tiny_attention(*given, 0.3)
        assert found.dtype == dtype
        assert found.is_contiguous()
        assert_rounded(found, reference(given, 0.3), units=0.5)


def test_it_stays_one_call_in_a_captured_graph():
    class Uses(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return tiny_attention(q, k, v, 0.5) * 2

    given = tuple(drawn(SHAPES[0]))
    program = torch.export.export(Uses(), given, strict=False)
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets == ["turbo4d.tiny_attention.default", "aten.mul.Tensor"]
    assert torch.equal(program.module()(*given), tiny_attention(*given, 0.5) * 2)


def test_what_the_kernel_does_not_compute_is_refused():
    q, k, v = drawn((1, 2, MAX_TOKENS + 1, 1, 8))
    text = (
        "tiny_attention: query, key and value are [(1, 2, 17, 1, 8), (1, 2, 17, 1, 8), "
        "(1, 2, 17, 1, 8)]; wanted one shape of groups outer, groups inner, tokens, heads, head, "
        "with at most 16 tokens."
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        tiny_attention(q, k, v, 1.0)
    with pytest.raises(ValueError, match="wanted one shape"):
        tiny_attention(q[:, :, :4], k[:, :, :5], v[:, :, :5], 1.0)


def test_it_says_where_the_kernel_does_not_run():
    assert missing(torch.device("cpu")) == ("its kernels run on CUDA, and values are on 'cpu'")


needs_interpreter = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1" or find_spec("triton") is None,
    reason="needs the package triton, and TRITON_INTERPRET=1 from the start of the process",
)


@needs_interpreter
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kernel_agrees_with_torch(shape, dtype):
    from turbo4d.runtime.engines.triton_kernels import launch

    for layout in ("images", "groups", "merged"):
        query, key, value = given = drawn(shape, dtype, layout)
        found = launch(query, key, value, 0.3)
        assert found.is_contiguous()
        # The interpreter cuts a bfloat16 off where a GPU rounds it.
        assert_rounded(found, reference(given, 0.3), units=1.0)


@needs_interpreter
def test_the_kernel_survives_large_scores():
    from turbo4d.runtime.engines.triton_kernels import launch

    q, k, v = drawn(SHAPES[0])[:3]
    found = launch(100 * q, 100 * k, v, 1.0)
    assert found.isfinite().all()
    assert (found.double() - reference([100 * q, 100 * k, v], 1.0)).abs().max() < 1e-4
