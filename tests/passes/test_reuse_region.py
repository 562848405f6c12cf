"""reuse-region: fires, refuses, idles, composes."""

from __future__ import annotations

import pytest
import torch
from turbo4d.compiler.capture import capture_export
from turbo4d.passes import BypassRegion, PassError, RecordSlot, ReuseRegion
from turbo4d.passes.base import emit, returned

from tests.passes.stream import make_stream
from tests.support import assert_rewrite, flat_args, fork, nodes_of

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default
FIRST = ReuseRegion("first", "linear_4", "slot_first")
CROSS = ReuseRegion("cross", "linear_8", "slot_cross")
BOTH = ReuseRegion("both", "add_1", "slot_both", "linear")


def test_a_residual_comes_from_its_slot() -> None:
    model, inputs = make_stream()
    x, context = inputs
    slot = torch.randn(2, 5, 8, dtype=x.dtype)
    with torch.no_grad():
        hidden = model.into(x) + slot
        expected = model.out(hidden + model.cross(hidden, context))
    assert_rewrite(
        FIRST,
        model,
        inputs,
        fires=1,
        gone={SDPA: 1, aten.linear.default: 4, aten.layer_norm.default: 1},
        stays={SDPA: 1, aten.add.Tensor: 2},
        golden="reuse_region",
        expected=[expected],
        slots=[slot],
        atol=0,
        rtol=0,
    )


def test_a_difference_is_added_to_the_entry() -> None:
    model, inputs = make_stream()
    slot = torch.randn(2, 5, 8, dtype=inputs[0].dtype)
    with torch.no_grad():
        expected = model.out(model.into(inputs[0]) + slot)
    done = assert_rewrite(
        BOTH,
        model,
        inputs,
        fires=1,
        gone={SDPA: 2, aten.linear.default: 8, aten.layer_norm.default: 2, aten.add.Tensor: 1},
        stays={aten.add.Tensor: 1},
        golden=None,
        expected=[expected],
        slots=[slot],
        atol=0,
        rtol=0,
    )
    assert "add_1" in [node.name for node in done.module.graph.nodes]


def test_the_slot_of_a_difference_has_its_layout() -> None:
    class Turned(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.sin() * 2).transpose(1, 2).cos().tanh()

    capture = capture_export(Turned().eval(), (torch.randn(2, 3, 3),))
    for entry, value in (("sin", "tanh"), ("permute", "tanh")):
        gm = fork(capture.module)
        RecordSlot("region", value, entry)(gm)
        written = returned(gm.graph)[-1].meta["val"]
        ReuseRegion("region", value, "slot_region", entry)(gm)
        slot = [node for node in gm.graph.nodes if node.op == "placeholder"][-1]
        assert slot.meta["val"].stride() == written.stride()


def test_a_value_that_is_no_residual_comes_whole_from_its_slot() -> None:
    model, inputs = make_stream()
    slot = torch.randn(2, 5, 8, dtype=inputs[0].dtype)
    with torch.no_grad():
        expected = model.out(slot)
    assert_rewrite(
        ReuseRegion("core", "add_1", "slot_core"),
        model,
        inputs,
        fires=1,
        gone={SDPA: 2, aten.linear.default: 9, aten.add.Tensor: 2},
        stays={aten.linear.default: 1},
        golden=None,
        expected=[expected],
        slots=[slot],
        atol=0,
        rtol=0,
    )


def test_an_output_that_is_the_slot_is_cloned() -> None:
    model, inputs = make_stream()
    slot = torch.randn(2, 5, 4, dtype=inputs[0].dtype)
    done = assert_rewrite(
        ReuseRegion("all", "linear_9", "slot_all"),
        model,
        inputs,
        fires=1,
        gone={aten.linear.default: 10},
        stays={aten.clone.default: 1},
        golden=None,
        expected=[slot],
        slots=[slot],
        atol=0,
        rtol=0,
    )
    assert done.outputs[0].data_ptr() != slot.data_ptr()


def test_the_slot_has_the_values_layout() -> None:
    class Transposed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x.sin().transpose(1, 2)

    model = Transposed().eval()
    capture = capture_export(model, (torch.randn(2, 3, 3),))
    gm = fork(capture.module)
    (value,) = nodes_of(gm.graph, aten.permute.default)
    ReuseRegion("region", value.name, "slot_region")(gm)
    slot = [node for node in gm.graph.nodes if node.op == "placeholder"][-1]
    assert slot.meta["val"].stride() == (9, 1, 3)


def test_refuses_an_unknown_node() -> None:
    model, inputs = make_stream()
    gm = fork(capture_export(model, inputs).module)
    with pytest.raises(PassError) as caught:
        ReuseRegion("first", "linear_44", "slot_first")(gm)
    assert str(caught.value) == (
        "reuse-region at %linear_44 (first): the graph has no such node among its 53; regions are "
        "named in the canonical graph. Specialise the capture that the regions were found in."
    )


def test_refuses_an_unknown_entry() -> None:
    model, inputs = make_stream()
    gm = fork(capture_export(model, inputs).module)
    with pytest.raises(PassError, match=r"^reuse-region at %nowhere \(both\): the graph has no"):
        ReuseRegion("both", "add_1", "slot_both", "nowhere")(gm)


def test_refuses_a_slot_that_is_there_already() -> None:
    model, inputs = make_stream()
    gm = fork(capture_export(model, inputs).module)
    FIRST(gm)
    with pytest.raises(PassError, match=r"^reuse-region at %linear_8 \(cross\): the graph already"):
        ReuseRegion("cross", "linear_8", "slot_first")(gm)


def test_idles_never_but_changes_no_other_call() -> None:
    """It has no option that selects nothing; a slot that nothing reads leaves every call alone."""
    model, inputs = make_stream()
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    site = nodes_of(gm.graph, SDPA)[0]
    with gm.graph.inserting_before(gm.graph.output_node()):
        dead = emit(gm.graph, aten.sin.default, site)
    ReuseRegion("dead", dead.name, "slot_dead")(gm)
    graphs = (capture.module.graph, gm.graph)
    calls = [[n.name for n in graph.nodes if n.op == "call_function"] for graph in graphs]
    assert calls[0] == calls[1]
    assert next(node for node in gm.graph.nodes if node.name == "slot_dead").users == {}


@pytest.mark.parametrize("order", [(FIRST, CROSS), (CROSS, FIRST)])
def test_composes_with_itself(order: tuple[ReuseRegion, ...]) -> None:
    model, inputs = make_stream()
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    for pass_ in order:
        pass_(gm)
    names = [node.name for node in gm.graph.find_nodes(op="placeholder")][len(capture.table) :]
    assert names == [pass_.slot for pass_ in order]
    slots = {
        "slot_first": torch.randn(2, 5, 8).double(),
        "slot_cross": torch.zeros(2, 5, 8).double(),
    }
    with torch.no_grad():
        (got,) = gm(*flat_args(capture, inputs), *(slots[name] for name in names))
        expected = model.out(model.into(inputs[0]) + slots["slot_first"])
    torch.testing.assert_close(got, expected, atol=0, rtol=0)
    assert nodes_of(gm.graph, SDPA) == []


def test_composes_with_a_region_that_begins_where_it_ends() -> None:
    """In place, so that the name of the exit stays, whichever of the two comes first."""
    model, inputs = make_stream()
    capture = capture_export(model, inputs)
    passes = [
        ReuseRegion("first", "add", "slot_first", "linear"),
        ReuseRegion("cross", "add_1", "slot_cross", "add"),
    ]
    slots = [torch.randn(2, 5, 8).double() for _ in passes]
    with torch.no_grad():
        expected = model.out(model.into(inputs[0]) + slots[0] + slots[1])
    for turn in (1, -1):
        gm = fork(capture.module)
        for pass_ in passes[::turn]:
            pass_(gm)
        with torch.no_grad():
            (got,) = gm(*flat_args(capture, inputs), *slots[::turn])
        assert torch.equal(got, expected)


def test_composes_with_record_and_bypass() -> None:
    """Recorded first, the exit that a bypass replaces is still returned."""
    model, inputs = make_stream()
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    for pass_ in (RecordSlot("core", "add_1"), BypassRegion("cross", "add", "add_1"), FIRST):
        pass_(gm)
    slot = torch.randn(2, 5, 8, dtype=inputs[0].dtype)
    with torch.no_grad():
        out, core = gm(*flat_args(capture, inputs), slot)
        hidden = model.into(inputs[0]) + slot
        torch.testing.assert_close(core, hidden, atol=0, rtol=0)
        torch.testing.assert_close(out, model.out(hidden), atol=0, rtol=0)
