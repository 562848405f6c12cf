"""Each invariant of the intermediate representation, broken once and seen."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.errors import VerifyError
from turbo4d.compiler.ir import Capture
from turbo4d.compiler.verify import verify
from turbo4d.passes.base import returned

from tests.passes.stream import make_stream
from tests.support import fork, nodes_of

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default
SITES = {"scaled_dot_product_attention": "first", "scaled_dot_product_attention_1": "cross"}


@pytest.fixture(scope="module")
def capture() -> Capture:
    return capture_export(*make_stream())


def by_name(gm: fx.GraphModule, name: str) -> fx.Node:
    return next(node for node in gm.graph.nodes if node.name == name)


def returns(gm: fx.GraphModule, *values: fx.Node) -> None:
    gm.graph.output_node().args = (values,)


def use_before_definition(gm: fx.GraphModule) -> None:
    by_name(gm, "linear").args = (by_name(gm, "add_1"), *by_name(gm, "linear").args[1:])


def value_missing(gm: fx.GraphModule) -> None:
    del by_name(gm, "add").meta["val"]


def value_untrue(gm: fx.GraphModule) -> None:
    node = by_name(gm, "add")
    node.meta["val"] = node.meta["val"].half()


def strides_untrue(gm: fx.GraphModule) -> None:
    node = by_name(gm, "permute")
    node.meta["val"] = node.meta["val"].contiguous()


def output_is_input(gm: fx.GraphModule) -> None:
    returns(gm, by_name(gm, "linear_9"), by_name(gm, "i_x"))


def output_views_input(gm: fx.GraphModule) -> None:
    with gm.graph.inserting_before(gm.graph.output_node()):
        view = gm.graph.call_function(aten.reshape.default, (by_name(gm, "i_x"), [40]))
    view.meta["val"] = by_name(gm, "i_x").meta["val"].reshape(40)
    returns(gm, by_name(gm, "linear_9"), view)


def outputs_share(gm: fx.GraphModule) -> None:
    returns(gm, by_name(gm, "linear_9"), by_name(gm, "linear_9"))


def dead_attention(gm: fx.GraphModule) -> None:
    by_name(gm, "linear_4").replace_all_uses_with(by_name(gm, "linear"))


def in_place(gm: fx.GraphModule) -> None:
    by_name(gm, "add").target = aten.add_.Tensor


def placeholder_gone(gm: fx.GraphModule) -> None:
    gm.graph.inserting_before(by_name(gm, "linear"))
    extra = gm.graph.placeholder("slot_core")
    extra.meta["val"] = by_name(gm, "add").meta["val"]


def placeholders_swapped(gm: fx.GraphModule) -> None:
    by_name(gm, "i_x").append(by_name(gm, "i_context"))


def unknown_attention(gm: fx.GraphModule) -> None:
    site = by_name(gm, "scaled_dot_product_attention")
    with gm.graph.inserting_after(site):
        again = gm.graph.call_function(SDPA, (*site.args[:2], site))
    again.meta["val"] = site.meta["val"]
    site.replace_all_uses_with(again, delete_user_cb=lambda user: user is not again)


MUTATIONS: list[tuple[Callable[[fx.GraphModule], None], str]] = [
    (use_before_definition, r"^I1: the graph does not lint: "),
    (value_missing, r"^I2 at %add: meta\['val'\] is NoneType, wanted one or more tensors\.$"),
    (
        value_untrue,
        r"^I2 at %add: meta\['val'\] is f16\[2, 5, 8\] with strides \[40, 8, 1\], the operator "
        r"gives f64\[2, 5, 8\] with strides \[40, 8, 1\]\.$",
    ),
    (strides_untrue, r"^I2 at %permute: .* with strides \[40, 20, 4, 1\], the operator gives"),
    (output_is_input, r"^I3 at %i_x: the output may share memory with the input %i_x\.$"),
    (output_views_input, r"^I3 at %reshape_default: the output may share memory with the input"),
    (outputs_share, r"^I3 at %linear_9: the output may share memory with the output %linear_9\.$"),
    (dead_attention, r"^I4 at %linear_4: nothing uses the call\.$"),
    (in_place, r"^I5 at %add: aten\.add_\.Tensor writes in place\.$"),
    (placeholder_gone, r"^I6: the graph has 21 placeholders, the table 20\.$"),
    (placeholders_swapped, r"^I6: placeholder 18 is %i_x, the table has %i_context\.$"),
    (
        unknown_attention,
        r"^I7 at %scaled_dot_product_attention_default: the attention is none of the 2 known sites",
    ),
]


@pytest.mark.parametrize(("mutate", "text"), MUTATIONS, ids=lambda it: getattr(it, "__name__", ""))
def test_a_broken_invariant_is_caught(
    capture: Capture, mutate: Callable[[fx.GraphModule], None], text: str
) -> None:
    gm = fork(capture.module)
    inputs = [row.name for row in capture.table]
    verify(gm, inputs=inputs, sites=SITES, full=True)
    mutate(gm)
    with pytest.raises(VerifyError) as caught:
        verify(gm, inputs=inputs, sites=SITES, full=True)
    assert re.search(text, str(caught.value))
    if " at %" in str(caught.value):
        assert caught.value.__notes__[0].startswith("%")


def test_a_cheap_look_does_not_derive_values(capture: Capture) -> None:
    gm = fork(capture.module)
    strides_untrue(gm)
    verify(gm, inputs=[row.name for row in capture.table])


class Branching(torch.nn.Module):
    """Two branches, of which one may give another shape or stride."""

    def __init__(self, otherwise: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.otherwise = otherwise

    def forward(self, take: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(take, lambda x: x.sin(), self.otherwise, (x,))


def branching(otherwise: Callable[[torch.Tensor], torch.Tensor]) -> fx.GraphModule:
    program = torch.export.export(Branching(otherwise), (torch.tensor(True), torch.randn(3, 3)))
    gm = program.graph_module
    (chosen,) = nodes_of(gm.graph, torch.ops.higher_order.cond)
    branches: Any = chosen.args[1:3]
    assert [branch.op for branch in branches] == ["get_attr", "get_attr"]
    return gm


def test_branches_that_agree_pass() -> None:
    verify(branching(lambda x: x.cos()), inputs=["take", "x"], full=True)


def test_branches_that_disagree_are_caught() -> None:
    """Export refuses what disagrees in this version or lets it through; the verifier sees it."""
    gm = branching(lambda x: x.cos())
    (chosen,) = nodes_of(gm.graph, torch.ops.higher_order.cond)
    otherwise: Any = chosen.args[2]
    branch: Any = gm.get_submodule(otherwise.target)
    (value,) = returned(branch.graph)
    value.meta["val"] = value.meta["val"].t()
    with pytest.raises(
        VerifyError, match=r"^I8 at %cond: true_graph_0 returns f32\[3, 3\] with st"
    ):
        verify(gm, inputs=["take", "x"])
