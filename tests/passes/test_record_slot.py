"""record-slot: fires, refuses, idles, composes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.verify import verify
from turbo4d.passes import PassError, RecordSlot, ReuseRegion
from turbo4d.passes.fold_single_key_attention import FoldSingleKeyAttention

from tests.passes.stream import make_stream
from tests.support import assert_idle, assert_rewrite, flat_args, fork, nodes_of

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default


def test_the_value_is_one_more_output() -> None:
    model, inputs = make_stream()
    with torch.no_grad():
        residual = model.first(model.into(inputs[0]))
        expected = [model(*inputs), residual]
    assert_rewrite(
        RecordSlot("first", "linear_4"),
        model,
        inputs,
        fires=1,
        gone={},
        stays={SDPA: 2, aten.clone.default: 0},
        golden="record_slot",
        expected=expected,
        atol=0,
        rtol=0,
    )


def test_the_difference_from_an_entry_is_one_more_output() -> None:
    model, inputs = make_stream()
    with torch.no_grad():
        hidden = model.into(inputs[0])
        left = hidden + model.first(hidden)
        left = left + model.cross(left, inputs[1])
        expected = [model(*inputs), left - hidden]
    assert_rewrite(
        RecordSlot("both", "add_1", "linear"),
        model,
        inputs,
        fires=1,
        gone={},
        stays={SDPA: 2, aten.sub.Tensor: 1, aten.clone.default: 0},
        golden=None,
        expected=expected,
        atol=0,
        rtol=0,
    )


class Aliases(nn.Module):
    """A view of an input, a view of the output, an expanded value."""

    def forward(self, x: Tensor) -> Tensor:
        turned = x.transpose(0, 1)
        wide = x.sum(0, keepdim=True).expand(3, 3)
        return (turned.sin() + wide.cos()).transpose(0, 1)


@pytest.mark.parametrize(
    ("value", "why"), [("permute", "input"), ("add", "output"), ("expand", "larger than it owns")]
)
def test_a_value_that_does_not_own_its_memory_is_cloned(value: str, why: str) -> None:
    x = torch.arange(9.0).reshape(3, 3)
    wide = x.sum(0, keepdim=True).expand(3, 3)
    values = {"permute": x.T, "add": x.T.sin() + wide.cos(), "expand": wide}
    done = assert_rewrite(
        RecordSlot("region", value),
        Aliases().eval(),
        [x],
        fires=1,
        gone={},
        stays={aten.clone.default: 1},
        golden=None,
        expected=[(x.T.sin() + wide.cos()).T, values[value]],
        atol=0,
        rtol=0,
    )
    output, slot = done.outputs
    output.zero_()
    x.zero_()
    assert slot.abs().sum() > 0, why
    assert slot.untyped_storage().nbytes() == 9 * 4


def test_refuses_an_unknown_node() -> None:
    model, inputs = make_stream()
    gm = fork(capture_export(model, inputs).module)
    with pytest.raises(PassError, match=r"^record-slot at %nowhere \(first\): the graph has no"):
        RecordSlot("first", "nowhere")(gm)


def test_refuses_an_unknown_entry() -> None:
    model, inputs = make_stream()
    gm = fork(capture_export(model, inputs).module)
    with pytest.raises(PassError, match=r"^record-slot at %nowhere \(both\): the graph has no"):
        RecordSlot("both", "add_1", "nowhere")(gm)


def test_idles_never_but_leaves_all_calls_alone() -> None:
    """It has no option that selects nothing; what it must not touch is every call."""
    model, inputs = make_stream()
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    RecordSlot("first", "linear_4")(gm)
    calls = [[node.name for node in g.nodes] for g in (capture.module.graph, gm.graph)]
    assert calls[0] == calls[1]
    assert_idle(FoldSingleKeyAttention(), capture_export(*make_stream(keys=2)).module)


def test_composes_with_reuse_of_the_same_value() -> None:
    """Where a later pass turns the recorded value into a slot, the output becomes its copy."""
    model, inputs = make_stream()
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    RecordSlot("outer", "add_1")(gm)
    ReuseRegion("inner", "add_1", "slot_inner")(gm)
    verify(gm, inputs=[*(row.name for row in capture.table), "slot_inner"], full=True)
    assert len(nodes_of(gm.graph, aten.clone.default)) == 1
    slot = torch.randn(2, 5, 8, dtype=inputs[0].dtype)
    with torch.no_grad():
        _, written = gm(*flat_args(capture, inputs), slot)
    assert torch.equal(written, slot)
    assert written.data_ptr() != slot.data_ptr()


def test_composes_with_reuse_inside_a_recorded_difference() -> None:
    """The difference follows: it is of what the step computes with the slot."""
    model, inputs = make_stream()
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    RecordSlot("both", "add_1", "linear")(gm)
    ReuseRegion("cross", "add_1", "slot_cross", "add")(gm)
    slot = torch.randn(2, 5, 8, dtype=inputs[0].dtype)
    with torch.no_grad():
        _, written = gm(*flat_args(capture, inputs), slot)
        hidden = model.into(inputs[0])
        expected = (hidden + model.first(hidden) + slot) - hidden
    torch.testing.assert_close(written, expected, atol=0, rtol=0)


def test_composes_with_a_second_record_of_one_value() -> None:
    model, inputs = make_stream()
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    for region in ("level", "core"):
        RecordSlot(region, "add_1")(gm)
    with torch.no_grad():
        _, first, second = gm(*flat_args(capture, inputs))
    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()
