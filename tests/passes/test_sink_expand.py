"""sink-expand: fires, refuses, idles, composes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.flops import count_flops
from turbo4d.compiler.verify import verify
from turbo4d.passes import FoldSingleKeyAttention, ReuseRegion, SinkExpand

from tests.passes.stream import make_stream
from tests.support import assert_idle, assert_rewrite, flat_args, fork, nodes_of

aten = torch.ops.aten
ROWS, TIMES, LENGTH, WIDE, CHANNELS = 4, 3, 5, 6, 8
Body = Callable[["Repeated", Tensor, Tensor], Tensor]


class Repeated(nn.Module):
    """x and two projections of a context of few rows, repeated; `body` says how they meet."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body = body
        self.v = nn.Linear(WIDE, CHANNELS, bias=False)
        self.out = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """[ROWS*TIMES, LENGTH, CHANNELS] and [ROWS, 1, WIDE]."""
        return self.body(self, x, context)


def repeated(context: Tensor) -> Tensor:
    """Each row TIMES times in a run."""
    return context.expand(-1, TIMES, -1).reshape(-1, 1, WIDE)


def made(body: Body, dtype: torch.dtype = torch.float64) -> tuple[Repeated, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    model = Repeated(body).to(dtype).eval()
    x = torch.randn(ROWS * TIMES, LENGTH, CHANNELS, dtype=dtype)
    return model, (x, torch.randn(ROWS, 1, WIDE, dtype=dtype))


def add(model: Repeated, x: Tensor, context: Tensor) -> Tensor:
    return x + model.out(model.v(repeated(context)).expand(-1, LENGTH, -1))


def by_hand(model: Repeated, context: Tensor) -> Tensor:
    """What each row adds, [ROWS, CHANNELS]: two products written out, each row once."""
    value = torch.einsum("re,ce->rc", context[:, 0], model.v.weight)
    return torch.einsum("rc,dc->rd", value, model.out.weight) + model.out.bias


@pytest.mark.parametrize(
    ("small_bytes", "reshapes", "clones", "golden"),
    [(0, 2, 0, "sink_expand"), (1 << 20, 1, 1, None)],
)
def test_products_are_taken_once_a_row(
    small_bytes: int, reshapes: int, clones: int, golden: str | None
) -> None:
    model, (x, context) = made(add)
    with torch.no_grad():
        shares = by_hand(model, context)
        expected = x + shares.repeat_interleave(TIMES, 0)[:, None]
    done = assert_rewrite(
        SinkExpand(small_bytes=small_bytes),
        model,
        (x, context),
        fires=1,
        gone={aten.linear.default: 0},
        stays={aten.linear.default: 2, aten.clone.default: clones},
        golden="sink_expand" if golden else None,
        expected=[expected],
        atol=1e-14,
        rtol=1e-13,
    )
    counted = sum(count_flops(done.module.graph).values())
    assert counted == 2 * ROWS * (WIDE * CHANNELS + CHANNELS * CHANNELS)
    wide = [node.meta["val"].numel() for node in nodes_of(done.module.graph, aten.linear.default)]
    assert wide == [ROWS * CHANNELS] * 2


def test_a_value_that_meets_none_of_its_size_is_repeated_last() -> None:
    def body(model: Repeated, x: Tensor, context: Tensor) -> Tensor:
        return torch.cat([x, model.out(model.v(repeated(context)))], 1)

    model, (x, context) = made(body)
    with torch.no_grad():
        share = by_hand(model, context).repeat_interleave(TIMES, 0)[:, None]
    done = assert_rewrite(
        SinkExpand(),
        model,
        (x, context),
        fires=1,
        gone={aten.reshape.default: 0, aten.expand.default: 0},
        stays={aten.linear.default: 2, aten.cat.default: 1},
        golden=None,
        expected=[torch.cat([x, share], 1)],
        atol=1e-14,
        rtol=1e-13,
    )
    counted = sum(count_flops(done.module.graph).values())
    assert counted == 2 * ROWS * (WIDE * CHANNELS + CHANNELS * CHANNELS)


def test_functions_of_one_value_are_taken_before_the_repeat() -> None:
    def body(model: Repeated, x: Tensor, context: Tensor) -> Tensor:
        return x * (nn.functional.silu(model.v(repeated(context))) * 2.0).expand_as(x)

    model, (x, context) = made(body)
    with torch.no_grad():
        value = 2 * nn.functional.silu(context[:, 0] @ model.v.weight.T)
    done = assert_rewrite(
        SinkExpand(),
        model,
        (x, context),
        fires=1,
        gone={},
        stays={aten.silu.default: 1},
        golden=None,
        expected=[x * value.repeat_interleave(TIMES, 0)[:, None]],
        atol=1e-14,
        rtol=1e-13,
    )
    (silu,) = nodes_of(done.module.graph, aten.silu.default)
    assert silu.meta["val"].numel() == ROWS * CHANNELS


def test_axes_that_are_not_repeated_are_permuted() -> None:
    """A shuffle of channels, as of heads, between the two products."""

    def body(model: Repeated, x: Tensor, context: Tensor) -> Tensor:
        shuffled = model.v(repeated(context)).unflatten(-1, (2, 4)).transpose(-1, -2).flatten(-2)
        return x + model.out(shuffled).expand(-1, LENGTH, -1)

    model, (x, context) = made(body)
    with torch.no_grad():
        value = context[:, 0] @ model.v.weight.T
        order = [0, 4, 1, 5, 2, 6, 3, 7]
        share = value[:, order] @ model.out.weight.T + model.out.bias
    assert_rewrite(
        SinkExpand(),
        model,
        (x, context),
        fires=1,
        gone={},
        stays={aten.linear.default: 2},
        golden=None,
        expected=[x + share.repeat_interleave(TIMES, 0)[:, None]],
        atol=1e-14,
        rtol=1e-13,
    )


def over_a_repeated_axis(model: Repeated, x: Tensor, context: Tensor) -> Tensor:
    return x + model.out(
        context.sum(-1, keepdim=True).expand(-1, TIMES, CHANNELS).reshape(-1, 1, CHANNELS)
    )


def softmax(model: Repeated, x: Tensor, context: Tensor) -> Tensor:
    return x + repeated(context).softmax(0).sum()


def mixed_factors(model: Repeated, x: Tensor, context: Tensor) -> Tensor:
    # Five copies of eight channels in rows of ten: a row is no whole number of copies.
    wide = model.v(context).expand(-1, LENGTH, -1).reshape(ROWS, 4, 10)
    return x.sum() + wide


def with_a_memory_format(model: Repeated, x: Tensor, context: Tensor) -> Tensor:
    wide = context[..., None].expand(-1, 2, -1, 3)
    cast = torch.ops.aten._to_copy.default(
        wide, dtype=torch.float32, memory_format=torch.channels_last
    )
    return x.sum() + cast.cos()


@pytest.mark.parametrize(
    "body", [over_a_repeated_axis, softmax, mixed_factors, with_a_memory_format]
)
def test_refuses_what_does_not_treat_every_copy_alike(body: Body) -> None:
    model, inputs = made(body)
    capture = capture_export(model, inputs)
    assert nodes_of(capture.module.graph, aten.expand.default)
    assert_idle(SinkExpand(small_bytes=0), capture.module)


def test_refuses_to_touch_what_it_must_keep() -> None:
    model, inputs = made(add)
    capture = capture_export(model, inputs)
    names = [node.name for node in nodes_of(capture.module.graph, aten.linear.default)]
    assert_idle(SinkExpand(keep=tuple(names)), capture.module)
    gm = fork(capture.module)
    SinkExpand(keep=(names[1],))(gm)
    by_name = {node.name: node for node in gm.graph.nodes}
    assert by_name[names[1]].target is aten.linear.default
    assert by_name[names[1]].meta["val"].shape == (ROWS * TIMES, LENGTH, CHANNELS)


def test_idles_without_repeats_and_where_broadcasting_does_it_all() -> None:
    model, inputs = made(lambda model, x, context: x + model.out(x))
    assert_idle(SinkExpand(), capture_export(model, inputs).module)
    model, inputs = made(lambda model, x, context: x + model.out(x)[:, :1].expand(-1, LENGTH, -1))
    assert_idle(SinkExpand(), capture_export(model, inputs).module)


@pytest.mark.parametrize("small_bytes", [0, 1 << 20])
def test_idles_the_second_time(small_bytes: int) -> None:
    model, inputs = made(add)
    gm = fork(capture_export(model, inputs).module)
    SinkExpand(small_bytes=small_bytes)(gm)
    assert_idle(SinkExpand(small_bytes=small_bytes), gm)


def test_composes_with_folding() -> None:
    """A folded attention's value is projected once, and added as it is to every query."""
    model, inputs = make_stream()
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    FoldSingleKeyAttention()(gm)
    report = SinkExpand()(gm)
    assert len(report.rewritten) == 1
    verify(gm, inputs=[row.name for row in capture.table], full=True)
    assert nodes_of(gm.graph, aten.expand.default) == []
    assert nodes_of(gm.graph, aten.clone.default) == []
    projections = nodes_of(gm.graph, aten.linear.default)[-3:-1]
    assert [node.meta["val"].numel() for node in projections] == [2 * 8, 2 * 8]
    with torch.no_grad():
        (got,) = gm(*flat_args(capture, inputs))
        torch.testing.assert_close(got, model(*inputs), atol=1e-14, rtol=1e-13)


def test_composes_with_reuse_of_the_sum_that_it_rewrote() -> None:
    model, inputs = made(lambda model, x, context: add(model, x, context).sin())
    capture = capture_export(model, inputs)
    (total,) = nodes_of(capture.module.graph, aten.add.Tensor)
    gm = fork(capture.module)
    SinkExpand(small_bytes=0, keep=(total.name,))(gm)
    by_name = {node.name: node for node in gm.graph.nodes}
    assert by_name[total.name].target is aten.reshape.default
    ReuseRegion("region", total.name, "slot_region")(gm)
    slot = torch.randn_like(inputs[0])
    (got,) = gm(*flat_args(capture, inputs), slot)
    assert torch.equal(got, slot.sin())
    assert nodes_of(gm.graph, aten.linear.default) == []


@st.composite
def moves(draw: st.DrawFn) -> list[tuple[str, int]]:
    kinds = st.tuples(
        st.sampled_from(["turn", "split", "join", "repeat", "insert"]), st.integers(0, 7)
    )
    return draw(st.lists(kinds, max_size=6))


def moved(value: Tensor, steps: list[tuple[str, int]]) -> Tensor:
    """Apply views and repeats of the rows.

    Sides are powers of two: no split cuts across a repeat; another test has one that does.
    """
    for kind, seed in steps:
        axis = seed % (value.dim() - 1)
        side = value.shape[axis]
        if kind == "turn" and value.dim() > 2:
            order = list(range(value.dim() - 1))
            value = value.permute(*order[1:], 0, value.dim() - 1)
        elif kind == "split" and side % 2 == 0 and value.dim() < 6:
            value = value.unflatten(axis, (2, side // 2) if seed % 3 else (side // 2, 2))
        elif kind == "join" and value.dim() > 2:
            value = value.flatten(0, 1)
        elif kind == "repeat" and value.numel() < 600:
            value = value.unsqueeze(axis).expand(
                *value.shape[:axis], 2 << seed % 2, *value.shape[axis:]
            )
        elif kind == "insert" and value.dim() < 6:
            value = value.unsqueeze(axis)
    return value


def test_a_split_across_a_repeat_is_left_alone() -> None:
    def body(model: Repeated, x: Tensor, context: Tensor) -> Tensor:
        rows = model.v(context).repeat_interleave(3, 0).unflatten(0, (ROWS * 3 // 2, 2))
        return model.out(rows).cumsum(0)

    model, inputs = made(body)
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    SinkExpand(small_bytes=0)(gm)
    verify(gm, inputs=[row.name for row in capture.table], full=True)
    with torch.no_grad():
        (got,) = gm(*flat_args(capture, inputs))
        assert torch.equal(got, model(*inputs))


@settings(max_examples=20, deadline=None)
@given(moves(), moves(), st.sampled_from([0, 1 << 20]), st.booleans())
def test_any_repeats_and_views_give_the_same_numbers(
    before: list[tuple[str, int]], after: list[tuple[str, int]], small_bytes: int, meet: bool
) -> None:
    def body(model: Repeated, x: Tensor, context: Tensor) -> Tensor:
        value = moved(model.out(moved(model.v(moved(context, before)), after)), before)
        return value + x.sum().expand_as(value).sin() if meet else value.cumsum(0)

    model, inputs = made(body)
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    SinkExpand(small_bytes=small_bytes)(gm)
    verify(gm, inputs=[row.name for row in capture.table], full=True)
    flops = [sum(count_flops(one.graph).values()) for one in (capture.module, gm)]
    assert flops[1] <= flops[0]
    assert flops[1] == 2 * ROWS * (WIDE * CHANNELS + CHANNELS * CHANNELS)
    with torch.no_grad():
        (got,) = gm(*flat_args(capture, inputs))
        torch.testing.assert_close(got, model(*inputs), atol=1e-12, rtol=1e-12)
