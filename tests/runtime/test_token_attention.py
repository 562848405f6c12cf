"""Attention from norm to sum: the operator, and its kernels under Triton's interpreter."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from turbo4d.runtime import token_attention as operator
from turbo4d.runtime.engines.triton_tuning import MOST_TOKENS, Tuning, tuning_of

token_attention: Any = operator.token_attention
# (outer groups, inner groups, tokens, channels, heads); widths and heads of no round size, too.
SHAPES = [(2, 9, 8, 32, 2), (3, 5, 5, 64, 4), (1, 7, 12, 40, 1), (1, 5, 2, 48, 2), (2, 3, 7, 80, 5)]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def drawn(shape, dtype=torch.float32, norm=True, bias=True, add: str | None = "x") -> list[Any]:
    """Arguments of the operator; the tokens of a group lie apart, as views of an image axis do."""
    outer, inner, tokens, channels, heads = shape
    generator = torch.Generator().manual_seed(sum(shape))

    def one(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator).to(dtype)

    def apart() -> Tensor:
        return one(outer, tokens, inner, channels).transpose(1, 2)

    x = apart()
    affine = [1 + 0.1 * one(channels), one(channels), 1e-5] if norm else [None, None, None]
    weights = [(one(channels, channels) / channels**0.5).to(dtype) for _ in range(4)]
    more = {"x": x, "other": one(outer, inner, tokens, channels), None: None}[add]
    last = one(channels) if bias else None
    return [x, *affine, *weights, last, heads, (channels // heads) ** -0.5, more]


def plain(x, weight, bias, eps, query, key, value, project, out_bias, heads, scale, add) -> Tensor:
    """The same by torch's functions, as a network spells it."""
    normed = x if eps is None else F.layer_norm(x, x.shape[-1:], weight, bias, eps)
    parts = [F.linear(normed, each).unflatten(-1, (heads, -1)) for each in (query, key, value)]
    turned = [part.transpose(2, 3) for part in parts]
    scores = (turned[0] @ turned[1].transpose(-1, -2) * scale).softmax(-1)
    found = F.linear((scores @ turned[2]).transpose(2, 3).flatten(3), project, out_bias)
    return found if add is None else found + add


def exact(given: list[Any]) -> Tensor:
    return plain(*(each.double() if isinstance(each, Tensor) else each for each in given))


def assert_as_near(found: Tensor, given: list[Any], times: float) -> None:
    """No further from the exact result than so many times what torch is, in the same dtype."""
    wanted = exact(given)
    off = (plain(*given).double() - wanted).norm()
    assert (found.double() - wanted).norm() <= times * off


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_operator_on_the_cpu_is_torch_to_rounding(shape, dtype):
    for norm, bias, add in product((True, False), (True, False), ("x", "other", None)):
        given = drawn(shape, dtype, norm, bias, add)
        found = token_attention(*given)
        assert (found.dtype, found.stride()) == (dtype, given[0].stride())
        assert_as_near(found, given, times=2)


def test_it_stays_one_call_in_a_captured_graph():
    class Uses(torch.nn.Module):
        def forward(self, *given: Tensor) -> Tensor:
            x, *weights = given
            return token_attention(x, None, None, None, *weights, None, 2, 0.25, x) * 2

    given = drawn(SHAPES[0])
    taken = (given[0], *given[4:8])
    program = torch.export.export(Uses(), taken, strict=False)
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets == ["turbo4d.token_attention.default", "aten.mul.Tensor"]
    assert torch.equal(program.module()(*taken), Uses()(*taken))


def refused(given: list[Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        token_attention(*given)


def test_what_the_kernels_do_not_compute_is_refused():
    given = drawn((1, 2, MOST_TOKENS + 1, 32, 1))
    text = "token_attention: 33 tokens of 32 channels in 1 heads; wanted at most 32 tokens, and "
    refused(given, text + "heads of whole channels.")
    given = drawn(SHAPES[0])
    text = "token_attention: weights are [(32, 16, torch.float32)"
    rest = ", (32, 32, torch.float32)" * 3
    narrow = [*given[:4], given[4][:, :16], *given[5:]]
    refused(narrow, f"{text}{rest}]; wanted dense ones of 32 x 32 in torch.float32.")
    turned = given[0].transpose(2, 3).contiguous().transpose(2, 3)
    text = (
        "token_attention: x and what is added are [(2, 9, 8, 32)] with channels [8] apart; wanted "
        "one shape of groups outer, groups inner, tokens, channels, with channels 1 apart."
    )
    refused([turned, *given[1:11], None], text)


def test_where_nothing_was_timed_the_tuning_says_so():
    for channels, dtype in product((32, 320, 1280), DTYPES):
        cut = tuning_of(channels, channels // 32, 8, dtype)
        assert not cut.timed
        assert cut.rows >= MOST_TOKENS  # a program holds whole groups
    assert tuning_of(128, 4, 5, torch.bfloat16).whole
    assert not tuning_of(320, 5, 8, torch.bfloat16).whole


needs_interpreter = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1" or find_spec("triton") is None,
    reason="needs the package triton, and TRITON_INTERPRET=1 from the start of the process",
)
CUTS = [Tuning(32, 16), Tuning(32, 32, columns=16, whole=False), None]


def launched(given: list[Any], cut: Tuning | None) -> Tensor:
    from turbo4d.runtime.engines.triton_token_attention import launch

    x, weight, bias, eps, query, key, value, project, last, heads, scale, add = given
    weights = (query, key, value, project, last)
    return launch(x, (weight, bias, eps), weights, heads, scale, add, cut)


@needs_interpreter
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cut", CUTS)
def test_the_kernels_agree_with_torch(shape, dtype, cut):
    given = drawn(shape, dtype)
    found = launched(given, cut)
    assert (found.dtype, found.stride()) == (dtype, given[0].stride())
    # The interpreter cuts a bfloat16 off where a GPU rounds it, at each of six places.
    assert_as_near(found, given, times=4 if dtype is torch.bfloat16 else 1.5)


@needs_interpreter
@pytest.mark.parametrize("cut", CUTS[:2])
def test_norm_bias_and_sum_may_be_absent(cut):
    for norm, bias, add in product((True, False), (True, False), ("other", None)):
        given = drawn(SHAPES[1], torch.float32, norm, bias, add)
        assert_as_near(launched(given, cut), given, times=2)
    given = [drawn(SHAPES[1])[0], None, None, 1e-5, *drawn(SHAPES[1])[4:]]
    assert_as_near(launched(given, cut), given, times=2)


@needs_interpreter
def test_large_values_and_scores_stay_finite():
    given = drawn(SHAPES[0])
    given[0] = given[11] = 300 + 100 * given[0]  # a mean far from zero is taken off first
    assert_as_near(launched(given, None), given, times=2)
    given[10] = 50.0
    assert launched(given, None).isfinite().all()
