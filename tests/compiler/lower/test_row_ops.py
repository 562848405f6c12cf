"""The row kernels: each against plain torch in float64, at sizes that fill no tile evenly."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.lower import row_kernels
from turbo4d.compiler.lower.compat import inductor_lacks
from turbo4d.compiler.lower.row_ops import (
    gated_feed_forward,
    group_norm,
    sequence_convolution,
    short_attention,
)

LACKS = inductor_lacks(torch.device("cpu")) or row_kernels.row_kernels_lack()
needs_compiler = pytest.mark.skipif(LACKS is not None, reason=str(LACKS))
# Sums of at most 512 terms err by about sqrt(512) units in the last place, 6e-8; erf by 4.5e-7.
BOUND = 2e-6


def error(one: Tensor, wide: Tensor) -> float:
    return float((one.double() - wide).norm() / wide.norm())


def wide(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.double()


def drawn(*shape: int, over: int = 1) -> Tensor:
    return torch.randn(shape) / math.sqrt(over)


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("rows", "width", "inner", "last"), [(1, 32, 32, 32), (101, 64, 96, 160)])
@pytest.mark.parametrize("parts", ["norm, biases, sum", "none"])
def test_feed_forward(
    rows: int, width: int, inner: int, last: int, parts: str, threads: int
) -> None:
    torch.manual_seed(0)
    all_parts = parts != "none"
    x, up, down = drawn(rows, width), drawn(2 * inner, width, over=width), drawn(last, inner)
    norm = (drawn(width), drawn(width)) if all_parts else (None, None)
    biases = (drawn(2 * inner), drawn(last)) if all_parts else (None, None)
    add = drawn(rows, last) if all_parts else None
    eps = 1e-3 if all_parts else None
    held = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = gated_feed_forward(x, *norm, eps, up, biases[0], down, biases[1], add)
    finally:
        torch.set_num_threads(held)
    entry = x.double()
    if eps is not None:
        entry = F.layer_norm(entry, (width,), wide(norm[0]), wide(norm[1]), eps)
    value, gate = F.linear(entry, up.double(), wide(biases[0])).chunk(2, -1)
    wanted = F.linear(value * F.gelu(gate), down.double(), wide(biases[1]))
    assert error(found, wanted if add is None else wanted + add) < BOUND


@needs_compiler
@pytest.mark.parametrize("length", [1, 4, 5, 17])
@pytest.mark.parametrize(("width", "heads"), [(32, 1), (96, 6), (64, 1)])
@pytest.mark.parametrize("whole", [True, False], ids=["with norm and sum", "alone"])
def test_attention(length: int, width: int, heads: int, whole: bool) -> None:
    torch.manual_seed(0)
    x = 3 * drawn(23, length, width)
    weights = [drawn(width, width, over=width) for _ in range(4)]
    norm = (drawn(width), drawn(width)) if whole else (None, None)
    bias, add = (drawn(width), drawn(23, length, width)) if whole else (None, None)
    q, k, v, o = weights
    eps = 1e-5 if whole else None
    found = short_attention(x, *norm, eps, q, k, v, o, bias, heads, 0.3, add)
    entry = x.double()
    if whole:
        entry = F.layer_norm(entry, (width,), wide(norm[0]), wide(norm[1]), 1e-5)
    q, k, v = (
        F.linear(entry, weight.double()).unflatten(-1, (heads, -1)).transpose(1, 2)
        for weight in weights[:3]
    )
    mixed = F.scaled_dot_product_attention(q, k, v, scale=0.3).transpose(1, 2).flatten(2)
    wanted = F.linear(mixed, o.double(), wide(bias))
    assert error(found, wanted if add is None else wanted + add) < BOUND


@needs_compiler
@pytest.mark.parametrize(("length", "taps"), [(1, 3), (2, 5), (7, 3)])
def test_convolution(length: int, taps: int) -> None:
    torch.manual_seed(0)
    x, weight = drawn(2, length, 5, 21, 32), drawn(64, 32, taps, 1, 1, over=32 * taps)
    bias, add = drawn(64), drawn(2, length, 5, 21, 64)
    for each, more in ((bias, add), (None, None)):
        found = sequence_convolution(x, weight, each, more)
        moved = x.double().permute(0, 4, 1, 2, 3)
        wanted = F.conv3d(moved, weight.double(), wide(each), padding=(taps // 2, 0, 0))
        wanted = wanted.permute(0, 2, 3, 4, 1)
        assert error(found, wanted if more is None else wanted + more) < BOUND


@needs_compiler
@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize(("width", "groups"), [(32, 32), (96, 32), (64, 1)])
@pytest.mark.parametrize("whole", [True, False], ids=["with sum, affine and SiLU", "alone"])
def test_group_norm(length: int, width: int, groups: int, whole: bool) -> None:
    torch.manual_seed(0)
    x = drawn(2, length, 7, 5, width) + 30 * drawn(width)  # means far beyond the deviations
    shift = drawn(2 * length, width) if whole else None
    weight, bias = (drawn(width), drawn(width)) if whole else (None, None)
    found = group_norm(x, length, groups, shift, weight, bias, 1e-5, whole)
    moved = x.double()
    if shift is not None:
        moved = moved + shift.double().view(2, length, 1, 1, width)
    moved = moved.permute(0, 4, 1, 2, 3)
    wanted = F.group_norm(moved, groups, wide(weight), wide(bias)).permute(0, 2, 3, 4, 1)
    # A mean of 30 deviations is known to 30 units in the last place of one, 6e-8.
    assert error(found, F.silu(wanted) if whole else wanted) < BOUND


@needs_compiler
def test_group_norm_of_one_value_everywhere_is_the_bias() -> None:
    x, bias = torch.full((2, 1, 64, 32), 1e4), drawn(32)
    found = group_norm(x, 1, 4, None, None, bias, 1e-5, False)
    assert torch.equal(found, bias.expand(found.shape))


@needs_compiler
def test_inputs_that_are_not_dense_are_copied_and_left_as_they_are() -> None:
    x, up, down = drawn(64, 40).t(), drawn(64, 64).t(), drawn(32, 32)
    kept = x.clone()
    found = gated_feed_forward(x, None, None, None, up, None, down, None, x[:, :32])
    value, gate = (x @ up.t()).chunk(2, -1)
    assert error(found, ((value * F.gelu(gate)) @ down.t() + x[:, :32]).double()) < BOUND
    assert torch.equal(x, kept)


@needs_compiler
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stays_so_in_its_own_row(bad: float) -> None:
    x, up, down = drawn(30, 32), drawn(64, 32), drawn(32, 32)
    x[7, 3] = bad
    out = gated_feed_forward(x, None, None, 1e-5, up, None, down, None, x)
    assert not out[7].isfinite().any()
    assert out[torch.arange(30) != 7].isfinite().all()
    q, k, v, o = (drawn(32, 32) for _ in range(4))
    normed = group_norm(x.view(6, 1, 5, 32), 1, 1, None, None, None, 1e-5, True)
    assert not normed[1].isfinite().any()
    assert normed[torch.arange(6) != 1].isfinite().all()
    mixed = short_attention(x.view(6, 5, 32), None, None, 1e-5, q, k, v, o, None, 1, 1.0, None)
    assert not mixed[1].isfinite().any()
    assert mixed[torch.arange(6) != 1].isfinite().all()


@needs_compiler
def test_gelu_is_right_everywhere() -> None:
    x = torch.linspace(-12, 12, 32 * 4096).view(-1, 32)
    up = torch.cat((torch.zeros(32, 32), torch.eye(32)))
    ones = torch.cat((torch.ones(32), torch.zeros(32)))
    found = gated_feed_forward(x, None, None, None, up, ones, torch.eye(32), None, None)
    assert float((found.double() - F.gelu(x.double())).abs().max()) < 2e-6


@needs_compiler
def test_large_scores_do_not_overflow() -> None:
    x = 100 * drawn(40, 4, 32)
    eye = torch.eye(32)
    found = short_attention(x, None, None, None, eye, eye, eye, eye, None, 1, 1.0, None)
    same = x.double()
    assert error(found, F.scaled_dot_product_attention(same, same, same, scale=1.0)) < BOUND


def test_a_compiler_that_refuses_is_named(monkeypatch: Any, tmp_path: Path) -> None:
    def refuse(words: list[str], **_: Any) -> Any:
        return subprocess.CompletedProcess(words, 1, "", "row_kernels.cpp:3: error: no such thing")

    monkeypatch.setattr(row_kernels, "_HELD", [])
    monkeypatch.setattr(row_kernels, "inductor_compiler", lambda: ("/usr/bin/c++", tmp_path))
    monkeypatch.setattr(row_kernels.subprocess, "run", refuse)
    with pytest.raises(LowerError) as raised:
        row_kernels.library()
    assert str(raised.value) == (
        "the row kernels do not compile: c++ says 'no such thing'; set TURBO4D_ROW_KERNELS=0 to "
        "do without them."
    )
    assert not list(tmp_path.rglob("*.so"))


@needs_compiler
def test_they_are_compiled_once_for_a_machine(monkeypatch: Any, tmp_path: Path) -> None:
    compiler = row_kernels.inductor_compiler()[0]
    calls: list[object] = []
    plain = subprocess.run
    monkeypatch.setattr(row_kernels, "inductor_compiler", lambda: (compiler, tmp_path))
    monkeypatch.setattr(
        row_kernels.subprocess, "run", lambda *a, **k: calls.append(a) or plain(*a, **k)
    )
    for _ in range(2):
        monkeypatch.setattr(row_kernels, "_HELD", [])
        row_kernels.library()
    assert len(calls) == 1
    assert len(list((tmp_path / "turbo4d").iterdir())) == 1
