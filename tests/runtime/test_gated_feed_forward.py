"""Gated feed-forwards from norm to sum: the operator, its kernels under Triton's interpreter."""

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
from turbo4d.runtime.engines.triton_tuning import Tuning
from turbo4d.runtime.gated_feed_forward import OPERATOR, by_torch

# (rows, channels, middle, result's channels); of no round size, too.
SHAPES = [((3, 5, 7), 32, 128, 32), ((50,), 40, 96, 24)]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def drawn(shape, dtype=torch.float32, norm=True, bias=True, add=True) -> list[Any]:
    """Arguments of the operator."""
    rows, channels, width, last = shape
    generator = torch.Generator().manual_seed(width)

    def one(*sizes: int, over: float = 1.0) -> Tensor:
        return (torch.randn(sizes, generator=generator) / over).to(dtype)

    affine = [1 + 0.1 * one(channels), one(channels), 1e-5] if norm else [None, None, None]
    up = one(2 * width, channels, over=channels**0.5)
    down = one(last, width, over=width**0.5)
    biases = (one(2 * width), one(last)) if bias else (None, None)
    more = one(*rows, last) if add else None
    return [one(*rows, channels), *affine, up, biases[0], down, biases[1], more]


def plain(x, weight, bias, eps, up, up_bias, down, down_bias, add) -> Tensor:
    """The same as a network spells it."""
    normed = x if eps is None else F.layer_norm(x, x.shape[-1:], weight, bias, eps)
    both = F.linear(normed, up, up_bias)
    half = both.shape[-1] // 2
    found = F.linear(both[..., :half] * F.gelu(both[..., half:]), down, down_bias)
    return found if add is None else found + add


def assert_as_near(found: Tensor, given: list[Any], times: float) -> None:
    """No further from the exact result than so many times what torch is, in the same dtype."""
    wanted = plain(*(each.double() if isinstance(each, Tensor) else each for each in given))
    off = (plain(*given).double() - wanted).norm()
    assert (found.double() - wanted).norm() <= times * off


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_operator_by_torch_is_a_network_s_own_to_rounding(shape, dtype):
    for switches in product((True, False), repeat=3):
        given = drawn(shape, dtype, *switches)
        found = by_torch(*given)
        assert found.dtype == dtype
        assert found.is_contiguous()
        assert_as_near(found, given, times=1.5)


def test_weights_that_do_not_fit_are_refused():
    given = drawn(SHAPES[0])
    text = (
        "gated_feed_forward: rows of 32 channels in torch.float32, weights [(255, 32, "
        "torch.float32), (32, 128, torch.float32)]; wanted weights of that dtype, up of two "
        "middles by channels and down of a middle."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        OPERATOR(*given[:4], given[4][1:], *given[5:])


@pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1" or find_spec("triton") is None,
    reason="needs the package triton, and TRITON_INTERPRET=1 from the start of the process",
)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cut", [Tuning(16, 16, 32), None])
def test_the_kernels_agree_with_torch(shape, dtype, cut):
    from turbo4d.runtime.engines.triton_gated_feed_forward import launch

    whole = (True, True, True)
    for switches in (whole, (False, False, False)) if dtype == torch.float32 else (whole,):
        x, weight, bias, eps, *weights, add = given = drawn(shape, dtype, *switches)
        found = launch(x, (weight, bias, eps), tuple(weights), add, cut)
        assert found.is_contiguous()
        # The interpreter cuts a bfloat16 off where a GPU rounds it.
        assert_as_near(found, given, times=4 if dtype is torch.bfloat16 else 1.5)
