"""fold-single-key-attention: fires, refuses, idles, composes; exact to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from turbo4d.compiler.capture import capture_export
from turbo4d.passes import FoldSingleKeyAttention, ReuseRegion

from tests.passes.stream import make_stream
from tests.support import assert_idle, assert_rewrite, flat_args, fork, nodes_of

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_attention_over_one_key_is_its_value(dtype: torch.dtype) -> None:
    model, inputs = make_stream(dtype=dtype)
    x, context = inputs
    with torch.no_grad():
        hidden = model.into(x)
        hidden = hidden + model.first(hidden)
        # Every query gets the one value: no softmax is taken here.
        crossed = model.cross.out(model.cross.v(context).expand(-1, x.shape[1], -1).contiguous())
        expected = model.out(hidden + crossed)
        assert torch.equal(expected, model(*inputs))
    assert_rewrite(
        FoldSingleKeyAttention(),
        model,
        inputs,
        fires=1,
        gone={SDPA: 1, aten.linear.default: 2, aten.layer_norm.default: 1},
        stays={SDPA: 1, aten.linear.default: 8},
        golden="fold_single_key_attention" if dtype == torch.float64 else None,
        expected=[expected],
        atol=0,
        rtol=0,
    )


class Bare(nn.Module):
    """One attention with options."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, **self.options)


def qkv(keys: int = 1, heads: int = 2) -> tuple[Tensor, ...]:
    return (torch.randn(2, 2, 5, 4), *(torch.randn(2, heads, keys, 4) for _ in range(2)))


@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 5), st.booleans(),
    st.floats(-1e4, 1e4), st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)  # fmt: skip
def test_equal_to_the_bit_for_all_values(
    groups: int,
    heads: int,
    queries: int,
    width: int,
    causal: bool,
    scale: float,
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(0)
    query = torch.randn(groups, heads, queries, width).to(dtype) * scale
    key, value = (torch.randn(groups, heads, 1, width).to(dtype) for _ in range(2))
    value = value * scale
    attended = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
    assert torch.equal(attended, value.expand(-1, -1, queries, -1))


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3}])
def test_options_that_do_not_matter(options: dict[str, Any]) -> None:
    inputs = qkv()
    assert_rewrite(
        FoldSingleKeyAttention(),
        Bare(**options).eval(),
        inputs,
        fires=1,
        gone={SDPA: 1},
        stays={SDPA: 0},
        golden=None,
        expected=[inputs[2].expand(-1, -1, 5, -1)],
        atol=0,
        rtol=0,
    )


@pytest.mark.parametrize(
    ("options", "inputs", "reason"),
    [
        ({}, qkv(keys=3), "3 keys"),
        ({"attn_mask": torch.zeros(5, 1)}, qkv(), "a mask, which may hide the only key"),
        ({"dropout_p": 0.5}, qkv(), "dropout 0.5"),
        (
            {"enable_gqa": True},
            qkv(heads=1),
            "groups and heads are [2, 2] in the queries, [2, 1] in the values",
        ),
    ],
)
def test_refuses(options: dict[str, Any], inputs: tuple[Tensor, ...], reason: str) -> None:
    module = Bare(**options).eval()
    if "dropout_p" in options:
        module = Bare().eval()
    captured = capture_export(module, inputs).module
    if "dropout_p" in options:
        (site,) = nodes_of(captured.graph, SDPA)
        site.kwargs = {"dropout_p": 0.5}
    report = assert_idle(FoldSingleKeyAttention(), captured)
    assert [skip.reason for skip in report.skipped] == [reason]


def test_idles_on_many_keys_and_the_second_time() -> None:
    assert_idle(FoldSingleKeyAttention(), capture_export(*make_stream(keys=3)).module)
    gm = fork(capture_export(*make_stream()).module)
    FoldSingleKeyAttention()(gm)
    assert_idle(FoldSingleKeyAttention(), gm)


def test_composes_with_reuse() -> None:
    model, inputs = make_stream()
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    ReuseRegion("first", "linear_4", "slot_first")(gm)
    report = FoldSingleKeyAttention()(gm)
    assert len(report.rewritten) == 1
    assert nodes_of(gm.graph, SDPA) == []
    assert nodes_of(gm.graph, aten.layer_norm.default) == []
    with torch.no_grad():
        hidden = model.into(inputs[0])
        (got,) = gm(*flat_args(capture, inputs), model.first(hidden))
        torch.testing.assert_close(got, model(*inputs), atol=0, rtol=0)
