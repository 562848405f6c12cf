"""Each invariant of the intermediate representation, broken once and seen."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx
from turbo4d.compiler.analysis import analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.errors import VerifyError
from turbo4d.compiler.ir import Capture
from turbo4d.compiler.regions import Port, Region
from turbo4d.compiler.specialise import specialise
from turbo4d.compiler.verify import verify
from turbo4d.compiler.verify_sites import known_sites
from turbo4d.passes.base import returned
from turbo4d.runtime.action import REUSE
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.captures import CHAINS, Chain, sv4d_call
from tests.passes.stream import make_stream
from tests.support import fork, nodes_of

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default
FIRST, SECOND = "scaled_dot_product_attention", "scaled_dot_product_attention_1"
SITES = {FIRST: "first", SECOND: "cross"}


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


def attention_in_two_regions(gm: fx.GraphModule) -> None:
    """The second block reads what the first attends to, beside its residual."""
    attended, first, norm = (by_name(gm, name) for name in ("reshape_3", "add", "layer_norm_1"))
    with gm.graph.inserting_before(norm):
        both = gm.graph.call_function(aten.add.Tensor, (first, attended))
    both.meta["val"] = first.meta["val"]
    norm.args = (both, *norm.args[1:])


def attention_outside_its_region(gm: fx.GraphModule) -> None:
    """The first block's projection no longer reads its attention; something behind it does."""
    projection, last = by_name(gm, "linear_4"), by_name(gm, "add_1")
    attended = by_name(gm, "reshape_3")
    projection.args = (by_name(gm, "layer_norm"), *projection.args[1:])
    with gm.graph.inserting_after(last):
        moved = gm.graph.call_function(aten.add.Tensor, (last, attended))
    moved.meta["val"] = last.meta["val"]
    last.replace_all_uses_with(moved, delete_user_cb=lambda user: user is not moved)


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
    (
        attention_in_two_regions,
        r"^I7 at %scaled_dot_product_attention: the attention is the site of 'first', and would "
        r"stay if that came from its slot\.$",
    ),
    (
        attention_outside_its_region,
        r"^I7 at %scaled_dot_product_attention: the attention is the site of 'first', and would "
        r"stay if that came from its slot\.$",
    ),
]


# Name, entry, value and parent of each region of the stream:
# in -> x + first(x) -> x + cross(x, context) -> out.
NESTED = (
    ("core", "linear", "add_1", None),
    ("first", "linear", "linear_4", "core"),
    ("cross", "add", "linear_8", "core"),
)


def regions(*rows: tuple[str, str, str, str | None]) -> tuple[Region, ...]:
    return tuple(
        Region(
            name=name,
            kind="block" if parent else "core",
            parent=parent,
            ports=(Port(entry, value, value, "exit", (2, 5, 8), torch.float64),),
            entries=(entry,),
            sites=(),
            nodes=0,
            flops=0,
        )
        for name, entry, value, parent in rows
    )


def test_each_invariant_has_a_mutation_and_is_listed() -> None:
    broken = {text[1:3] for _, text in MUTATIONS} | {"I8"}  # its own tests are below
    said = re.findall(r"^(I\d)  ", inspect.getdoc(sys.modules[verify.__module__]) or "", re.M)
    assert said == sorted(broken) == [f"I{number}" for number in range(1, 9)]


@pytest.mark.parametrize(("mutate", "text"), MUTATIONS, ids=lambda it: getattr(it, "__name__", ""))
def test_a_broken_invariant_is_caught(
    capture: Capture, mutate: Callable[[fx.GraphModule], None], text: str
) -> None:
    gm = fork(capture.module)
    inputs = [row.name for row in capture.table]
    verify(gm, inputs=inputs, sites=SITES, regions=regions(*NESTED), full=True)
    mutate(gm)
    with pytest.raises(VerifyError) as caught:
        verify(gm, inputs=inputs, sites=SITES, regions=regions(*NESTED), full=True)
    assert re.search(text, str(caught.value))
    if " at %" in str(caught.value):
        assert caught.value.__notes__[0].startswith("%")


def test_an_attention_in_two_regions_that_do_not_nest_is_caught(capture: Capture) -> None:
    """The same graph, and regions that claim more than theirs."""
    rows = (*NESTED[:2], ("cross", "linear", "add_1", "core"))
    with pytest.raises(VerifyError) as caught:
        verify(
            capture.module,
            inputs=[row.name for row in capture.table],
            sites=SITES,
            regions=regions(*rows),
        )
    assert str(caught.value) == (
        f"I7 at %{FIRST}: the attention is the site of 'first', and would be gone with 'cross' as "
        "well."
    )


class Refined(torch.nn.Module):
    """A stream whose context attends to itself first: an attention that is no site."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = Chain(CHAINS["chain"])
        self.turbo4d_geometry = self.chain.turbo4d_geometry
        self.mix = torch.nn.Linear(24, 24)

    def forward(self, context: torch.Tensor, **call: torch.Tensor) -> torch.Tensor:
        mixed = self.mix(context).unsqueeze(1)
        refined = torch.nn.functional.scaled_dot_product_attention(mixed, mixed, mixed)
        return self.chain(context=refined.squeeze(1), **call)


def test_an_attention_off_the_sample_s_path_is_known() -> None:
    """As in the text refiners of joint models: no site, and no reason to refuse the graph."""
    call = sv4d_call(CHAINS["chain"], device="meta")
    analysis = analyse(capture_export(Refined().to("meta").eval(), (), call))
    known = known_sites(analysis)
    [refiner] = set(known) - {site.node for site in analysis.sites}
    assert known[refiner] is None
    for exact in (False, True):
        key = VariantKey((("stack.0.chain", REUSE),), (), exact=exact)
        # Where the chain is reused, nothing reads the context any more.
        assert nodes_of(specialise(analysis, key).module.graph, SDPA) == []


def test_a_region_without_its_nodes_is_not_looked_at(capture: Capture) -> None:
    """A bypassed region has no exit any more, and its attention is gone or is another's."""
    rows = (*NESTED[:2], ("cross", "linear", "gone", "core"))
    verify(
        capture.module,
        inputs=[row.name for row in capture.table],
        sites=SITES,
        regions=regions(*rows),
    )


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
