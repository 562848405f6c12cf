"""merge-duplicates: fires, refuses, idles, composes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from turbo4d.compiler.capture import capture_export
from turbo4d.passes import MergeDuplicates, MergeSharedProjections, ReuseRegion

from tests.passes.stream import make_stream
from tests.support import assert_idle, assert_rewrite, flat_args, fork, nodes_of

aten = torch.ops.aten


class Twice(nn.Module):
    """What every residual block of a UNet does with its embedding: the same again."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        x = x + self.first(nn.functional.silu(emb + 1))
        x = x * self.second(nn.functional.silu(emb + 1))
        return x.clamp(0, 1) + x.clamp(0.0, 1.0).sum(1, keepdim=True)


def made() -> tuple[Twice, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    return Twice().double().eval(), (torch.randn(3, 4).double(), torch.randn(3, 4).double())


def test_equal_calls_become_one() -> None:
    model, (x, emb) = made()
    with torch.no_grad():
        active = nn.functional.silu(emb + 1)
        hidden = (x + model.first(active)) * model.second(active)
        expected = hidden.clamp(0, 1)
        expected = expected + expected.sum(1, keepdim=True)
    assert_rewrite(
        MergeDuplicates(),
        model,
        (x, emb),
        fires=2,
        gone={aten.silu.default: 1, aten.linear.default: 0, aten.clamp.default: 0},
        stays={aten.silu.default: 1, aten.linear.default: 2},
        golden="merge_duplicates",
        expected=[expected],
        atol=0,
        rtol=0,
    )


def test_refuses_to_merge_what_a_region_knows_by_name() -> None:
    model, inputs = made()
    capture = capture_export(model, inputs)
    later = nodes_of(capture.module.graph, aten.silu.default)[1]
    gm = fork(capture.module)
    report = MergeDuplicates(keep=(later.name,))(gm)
    assert [skip.place for skip in report.skipped] == [f"%{later.name}"]
    assert report.skipped[0].reason == "the same as %silu, but a region knows it by name"
    assert len(nodes_of(gm.graph, aten.silu.default)) == 2


def test_refuses_arguments_that_are_equal_but_not_the_same() -> None:
    """1, 1.0 and True are equal in Python; the operator gives other dtypes for them."""

    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 2).float() + x * 2.0 + (x + 1) + (x + 1.0) + (x + True)

    model = Scaled().eval()
    capture = capture_export(model, (torch.arange(3),))
    assert_idle(MergeDuplicates(), capture.module)


def test_idles_where_no_two_calls_are_equal_and_the_second_time() -> None:
    assert_idle(MergeDuplicates(), capture_export(*make_stream()).module)
    gm = fork(capture_export(*made()).module)
    MergeDuplicates()(gm)
    assert_idle(MergeDuplicates(), gm)


def test_composes_with_merged_projections() -> None:
    """Two linears of equal values are two linears of one value."""
    model, inputs = made()
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    merge = MergeSharedProjections(varying=("i_emb",))
    assert_idle(merge, gm)
    MergeDuplicates()(gm)
    assert len(merge(gm).rewritten) == 2
    with torch.no_grad():
        (got,) = gm(*flat_args(capture, inputs))
        torch.testing.assert_close(got, model(*inputs), atol=1e-15, rtol=1e-14)


def test_composes_with_reuse() -> None:
    model, inputs = made()
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    MergeDuplicates()(gm)
    ReuseRegion("region", "mul", "slot_region")(gm)
    slot = torch.randn_like(inputs[0])
    (got,) = gm(*flat_args(capture, inputs), slot)
    assert torch.equal(got, slot.clamp(0, 1) + slot.clamp(0, 1).sum(1, keepdim=True))
    assert nodes_of(gm.graph, aten.silu.default) == []
