"""record-relevance: fires, refuses, idles, composes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from turbo4d.compiler.capture import capture_export
from turbo4d.passes import PassError, RecordRelevance, RecordSlot, ReuseRegion
from turbo4d.passes.base import returned
from turbo4d.passes.record_relevance import sample_step

from tests.passes.stream import Attend, Stream, make_stream
from tests.support import assert_rewrite, flat_args, fork, nodes_of

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default
FIRST = RecordRelevance("first", "scaled_dot_product_attention", ("I*2", "*2"), queries=2)


def attention_map(attend: Attend, x: Tensor) -> Tensor:
    """[B, heads, N, N]."""
    query, key = (
        p(attend.norm(x)).unflatten(-1, (2, -1)).transpose(1, 2) for p in (attend.q, attend.k)
    )
    return (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("queries", "asked"), [(2, [0, 3]), (4, [0, 3]), (0, [0, 1, 2, 3, 4])])
def test_the_sums_of_the_sampled_queries_are_returned(
    queries: int, asked: list[int], dtype: torch.dtype
) -> None:
    model, inputs = make_stream(dtype=dtype)
    with torch.no_grad():
        expected = model(*inputs)
        sums = attention_map(model.first, model.into(inputs[0]))[:, :, asked].sum((1, 2))
    done = assert_rewrite(
        replace(FIRST, queries=queries),
        model,
        inputs,
        fires=1,
        gone={SDPA: 0},
        stays={aten.softmax.int: 1},
        golden="record_relevance" if (queries, dtype) == (2, torch.float64) else None,
        expected=[expected, sums],
        atol=0,
        rtol={torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype],
    )
    [weights] = nodes_of(done.module.graph, aten.softmax.int)
    assert weights.meta["val"].shape == (2, 2, len(asked), 5)
    assert done.outputs[1].dtype == torch.float32


def test_the_sample_is_as_large_as_asked_and_falls_into_every_column() -> None:
    for tokens in (9, 16, 64, 100, 256, 1024, 5184):
        step = sample_step(tokens, 64) if tokens > 64 else 1
        sampled = range(0, tokens, step)
        assert len(sampled) <= 64
        assert len(sampled) >= min(tokens, 32)
        for width in (8, 16, 32):
            if tokens == width * width:
                assert {at % width for at in sampled} == set(range(width))


def test_images_are_told_apart_where_heads_lie_beside_them() -> None:
    """Heads folded into the rows, as older networks do."""

    class Folded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rows = x.unflatten(-1, (2, 4)).permute(0, 2, 1, 3).reshape(6, 5, 4)
            return F.scaled_dot_product_attention(rows, rows, rows, scale=0.3)

    x = torch.randn(3, 5, 8)
    rows = x.unflatten(-1, (2, 4)).permute(0, 2, 1, 3)
    sums = (rows @ rows.mT * 0.3).softmax(-1).sum((1, 2))
    assert_rewrite(
        replace(FIRST, batch=("I*3 *2",), queries=0), Folded().eval(), [x], fires=1, gone={},
        stays={}, golden=None, expected=[Folded()(x), sums], atol=1e-6, rtol=0,
    )  # fmt: skip


class Odd(nn.Module):
    """An attention of another kind."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        q, k = x[:, :, :5], x[:, :, 5:]
        if self.kind == "mask":
            return F.scaled_dot_product_attention(q, k, k, attn_mask=x[0, 0, :5, :5])
        if self.kind == "causal":
            return F.scaled_dot_product_attention(q, k, k, is_causal=True)
        return F.scaled_dot_product_attention(q, k[:, :1], k[:, :1], enable_gqa=True)


@pytest.mark.parametrize(
    ("kind", "fact"),
    [
        ("mask", "it has a mask"),
        ("causal", "it is causal"),
        ("groups", "queries are [3, 2, 5, 8], keys [3, 1, 5, 8]"),
    ],
)
def test_refuses_what_is_no_plain_attention(kind: str, fact: str) -> None:
    gm = fork(capture_export(Odd(kind).eval(), (torch.randn(3, 2, 10, 8),)).module)
    [site] = nodes_of(gm.graph, SDPA)
    with pytest.raises(PassError) as caught:
        replace(FIRST, attention=site.name)(gm)
    assert str(caught.value) == (
        f"record-relevance at %{site.name} (first): {fact}; relevance is read from a plain fused "
        "self-attention. Take another region's."
    )
    assert f"%{site.name}" in caught.value.__notes__[0]


def test_refuses_what_is_no_attention() -> None:
    model, inputs = make_stream()
    gm = fork(capture_export(model, inputs).module)
    with pytest.raises(PassError, match=r"%linear \(first\): it is aten.linear.default; relevance"):
        replace(FIRST, attention="linear")(gm)


def test_idles_never_but_changes_no_call() -> None:
    """It has no option that selects nothing; what was there is left as it was."""
    model, inputs = make_stream()
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    FIRST(gm)
    names = {node.name for node in capture.module.graph.nodes} - {"output"}
    before, after = (
        [(node.target, str(node.args), node.kwargs) for node in graph.nodes if node.name in names]
        for graph in (capture.module.graph, gm.graph)
    )
    assert before == after


def test_composes_with_what_is_recorded_and_reused_beside_it() -> None:
    model, inputs = make_stream()
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    for pass_ in (
        RecordSlot("first", "linear_4"),
        FIRST,
        ReuseRegion("cross", "linear_8", "slot_cross"),
    ):
        pass_(gm)
    assert len(returned(gm.graph)) == 3
    assert len(nodes_of(gm.graph, SDPA)) == 1
    assert isinstance(model, Stream)
    with torch.no_grad():
        _, value, sums = gm(*flat_args(capture, inputs), torch.zeros(2, 5, 8).double())
        assert torch.equal(value, model.first(model.into(inputs[0])))
        whole = attention_map(model.first, model.into(inputs[0]))
    torch.testing.assert_close(sums, whole[:, :, [0, 3]].sum((1, 2)), atol=0, rtol=1e-6)
