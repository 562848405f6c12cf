from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn
from turbo4d.compiler.analysis import analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.flops import flops_of
from turbo4d.compiler.flow import only_for
from turbo4d.compiler.regions import Region

from tests.compiler.captures import analysed, build, exported
from tests.compiler.foreign import Attention
from tests.support import flat_args

NAMES = ("sv4d_tree", "chain_of_groups", "video_unet", "joint_dit", "multi_view")
TWO_STREAMS = ("cog_dit", "mm_dit", "hunyuan_dit")


def named(name: str, kind: str) -> list[str]:
    return [region.name for region in analysed(name).regions if region.kind == kind]


def test_chains_of_a_unet_are_named_by_structure() -> None:
    assert named("sv4d_tree", "chain") == [
        "down.0.0.chain", "down.1.0.chain", "middle.chain", "up.1.0.chain", "up.1.1.chain",
        "up.0.0.chain", "up.0.1.chain",
    ]  # fmt: skip
    assert named("sv4d_tree", "level") == ["level.1"]
    assert named("sv4d_tree", "core") == ["core"]
    assert named("sv4d_tree", "block")[:3] == [
        "down.0.0.spatial", "down.0.0.camera", "down.0.0.motion",
    ]  # fmt: skip
    assert len(named("sv4d_tree", "block")) == 3 * 7


def test_chains_at_one_resolution_are_a_stack() -> None:
    assert named("multi_view", "chain") == ["stack.0.chain"]
    assert named("joint_dit", "chain") == ["stack.0.chain", "stack.1.chain"]


def test_separate_transformers_are_chains_of_their_own() -> None:
    assert named("video_unet", "chain") == [
        "down.0.0.chain", "down.0.1.chain", "middle.0.chain", "middle.1.chain", "up.0.0.chain",
        "up.0.1.chain",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_region_is_entered_and_left_in_one_place(name: str) -> None:
    """Cutting the exit leaves nothing inside alive; cutting the entry starves the exit."""
    analysis = analysed(name)
    nodes = {node.name: node for node in analysis.capture.module.graph.nodes}
    sample = analysis.capture.table[analysis.roles.sample].name
    results = analysis.capture.module.graph.output_node().all_input_nodes
    for region in analysis.regions:
        if region.kind != "step":  # which begins with the sample itself
            assert not _reaches(nodes[sample], [nodes[region.exit]], {nodes[region.entry]})
        assert not _reaches(nodes[region.entry], results, without={nodes[region.exit]})
        assert _reaches(nodes[region.entry], [nodes[region.exit]], without=set())


def _reaches(start: fx.Node, ends: list[fx.Node], without: set[fx.Node]) -> bool:
    waiting, seen = [start], {start, *without}
    while waiting:
        node = waiting.pop()
        if node in ends:
            return True
        waiting += [user for user in node.users if user not in seen]
        seen |= set(node.users)
    return False


@pytest.mark.parametrize("name", [*NAMES, *TWO_STREAMS])
def test_a_slot_holds_what_its_form_says(name: str) -> None:
    analysis = analysed(name)
    nodes = {node.name: node for node in analysis.capture.module.graph.nodes}
    for region in analysis.regions:
        assert region.residual == (region.kind in ("block", "chain"))
        for port in region.ports:
            if port.form == "sum":
                node = nodes[port.exit]
                assert node.target is torch.ops.aten.add.Tensor
                assert {o.name for o in node.all_input_nodes} == {port.entry, port.value}
                continue
            assert port.value == port.exit
            assert (port.form == "difference") == (region.kind in ("block", "chain"))
            if port.form == "difference":
                entry, exit_ = (nodes[str(end)].meta["val"] for end in (port.entry, port.exit))
                assert (entry.shape, entry.dtype) == (exit_.shape, exit_.dtype)


def test_blocks_of_sv4d_hold_differences_and_its_chains_sums() -> None:
    forms = {r.name: r.ports[0].form for r in analysed("sv4d_tree").regions}
    assert {forms[name] for name in forms if name.endswith(".chain")} == {"sum"}
    blocks = [name for name in forms if name.endswith((".spatial", ".camera", ".motion"))]
    assert {forms[name] for name in blocks} == {"difference"}
    assert (forms["core"], forms["level.1"]) == ("exit", "exit")


@pytest.mark.parametrize("name", [*NAMES, *TWO_STREAMS])
def test_regions_nest_and_hold_every_site_once(name: str) -> None:
    analysis = analysed(name)
    by_name = {region.name: region for region in analysis.regions}
    rank = ["block", "chain", "level", "core", "step"]
    for region in analysis.regions:
        if region.parent is not None:
            parent = by_name[region.parent]
            assert rank.index(region.kind) <= rank.index(parent.kind)
            assert set(region.sites) <= set(parent.sites)
            assert region.flops <= parent.flops
    chains = [region for region in analysis.regions if region.kind == "chain"]
    held = [site for chain in chains for site in chain.sites]
    assert sorted(held) == sorted(site.name for site in analysis.sites)
    for chain in chains:
        blocks = [r for r in analysis.regions if r.kind == "block" and r.parent == chain.name]
        assert sorted(s for b in blocks for s in b.sites) == (sorted(chain.sites) if blocks else [])


def test_the_core_is_all_but_the_first_and_the_last_product() -> None:
    analysis = analysed("sv4d_tree")
    nodes = {node.name: node for node in analysis.capture.module.graph.nodes}
    core = _region("sv4d_tree", "core")
    assert nodes[core.entry].args[1].name == "w_input_blocks_0_0_weight"  # type: ignore[union-attr]
    [last] = nodes[core.exit].users
    assert last.args[1].name == "w_out_2_weight"  # type: ignore[union-attr]


def test_a_level_reaches_from_the_downsample_to_the_upsample() -> None:
    analysis = analysed("sv4d_tree")
    nodes = {node.name: node for node in analysis.capture.module.graph.nodes}
    level = _region("sv4d_tree", "level.1")
    assert nodes[level.entry].args[1].name == "w_input_blocks_2_0_op_weight"  # type: ignore[union-attr]
    assert nodes[level.exit].args[1].name == "w_output_blocks_1_2_conv_weight"  # type: ignore[union-attr]


def test_a_block_reaches_around_its_attention_and_feed_forwards() -> None:
    """Each block has eight projections, and two products per feed-forward."""
    analysis = analysed("sv4d_tree")
    linear = torch.ops.aten.linear.default
    nodes = {node.name: node for node in analysis.capture.module.graph.nodes}
    for kind, feed_forwards in (("spatial", 1), ("camera", 2), ("motion", 2)):
        block = _region("sv4d_tree", f"down.0.0.{kind}")
        inside = only_for(nodes[block.value], nodes[block.entry])
        products = [node for node in inside if node.target is linear]
        # C and M have the view or frame embedding's two as well.
        extra = 0 if kind == "spatial" else 2
        assert len(products) == 8 + 2 * feed_forwards + extra
        assert block.flops == sum(flops_of(node) for node in inside)


def test_a_chain_costs_its_blocks_and_its_two_projections() -> None:
    costs = {region.name: region.flops for region in analysed("sv4d_tree").regions}
    blocks = sum(costs[f"down.0.0.{kind}"] for kind in ("spatial", "camera", "motion"))
    images, pixels, channels = 12, 64, 32
    assert costs["down.0.0.chain"] == blocks + 2 * 2 * images * pixels * channels * channels


class _Whole(nn.Module):
    """A network that adds all it does to its input: that sum is no transformer module."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.attention = nn.ModuleList(Attention(4) for _ in range(2))
        self.mlp = nn.Linear(4, 4)
        self.last = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.first(x).flatten(2).transpose(1, 2)
        for attention in self.attention:
            tokens = tokens + attention(tokens)
            tokens = tokens + self.mlp(tokens)
        return x + self.last(tokens.transpose(1, 2).reshape(x.shape))


def test_a_sum_around_convolutions_is_no_chain() -> None:
    analysis = analyse(capture_export(_Whole().eval(), (torch.zeros(2, 4, 4, 4),)))
    nodes = {node.name: node for node in analysis.capture.module.graph.nodes}
    chains = [region for region in analysis.regions if region.kind == "chain"]
    assert [chain.name for chain in chains] == ["stack.0.chain", "stack.1.chain"]
    for chain in chains:
        # Each has its feed-forward, so it is two sums in a row and its slot holds their total.
        assert (chain.ports[0].form, chain.value) == ("difference", chain.exit)
        assert nodes[chain.exit].args[1].args[1].name == "w_mlp_weight"  # type: ignore[union-attr]


class _AttentionAlone(nn.Module):
    """A chain that is nothing but norm and attention, added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.norm, self.attention = nn.LayerNorm(4), Attention(4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.first(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(self.norm(tokens))
        return self.last(tokens.transpose(1, 2).reshape(x.shape))


def test_what_hands_nothing_on_is_no_block() -> None:
    """Between the norm and the projection shapes agree, but nothing is added to the norm."""
    analysis = analyse(capture_export(_AttentionAlone().eval(), (torch.zeros(2, 4, 4, 4),)))
    assert [region.name for region in analysis.regions] == ["step", "core", "stack.0.chain"]
    assert analysis.regions[2].ports[0].form == "sum"


class _DepthwiseFeedForward(_AttentionAlone):
    """A feed-forward over images, whose convolution mixes no channels."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 4, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        tokens = hidden.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(self.norm(tokens))
        images = tokens.transpose(1, 2).reshape(hidden.shape)
        return self.last(images + self.narrow(self.depthwise(self.wide(images)).relu()))


def test_a_depthwise_convolution_is_a_transformers_own() -> None:
    analysis = analyse(capture_export(_DepthwiseFeedForward().eval(), (torch.zeros(2, 4, 4, 4),)))
    nodes = {node.name: node for node in analysis.capture.module.graph.nodes}
    *_, chain, block = analysis.regions
    # The attention works on tokens, the feed-forward on images: the chain begins where both do.
    assert (chain.entry, chain.ports[0].form) == ("conv2d", "difference")
    assert (block.name, block.ports[0].form) == ("stack.0.spatial", "sum")
    last = nodes[chain.exit].args[1]
    assert last.args[1].name == "w_narrow_weight"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["video_unet", "multi_view"])
def test_slots_have_the_shape_dtype_and_bytes_of_the_value(name: str) -> None:
    analysis = analysed(name)
    _, call = build(name)
    values = _values(exported(name).module, flat_args(exported(name), (), call))
    for region in analysis.regions:
        value = values[region.value]
        assert region.slot_shape == tuple(value.shape)
        assert region.slot_dtype == value.dtype
        assert region.slot_bytes == value.numel() * value.element_size()


def _values(module: fx.GraphModule, args: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    seen: dict[str, torch.Tensor] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> torch.Tensor:
            seen[n.name] = super().run_node(n)
            return seen[n.name]

    with torch.no_grad():
        Recorder(module).run(*args)
    return seen


def _region(name: str, region: str) -> Region:
    return next(one for one in analysed(name).regions if one.name == region)


def test_a_narrow_dtype_has_the_same_regions() -> None:
    narrow = analyse(exported("chain", torch.bfloat16))
    wide = analysed("chain")
    assert [(r.name, r.kind, r.parent, r.ports[0].form, r.flops) for r in narrow.regions] == [
        (r.name, r.kind, r.parent, r.ports[0].form, r.flops) for r in wide.regions
    ]
    assert [2 * r.slot_bytes for r in narrow.regions] == [r.slot_bytes for r in wide.regions]
