"""What is planted is found: names, kinds, parents, forms and costs of regions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.capture import capture_export

from tests.compiler.planted import Net, build, costs, products
from tests.compiler.planted_attention import NORMS, PROJECTIONS, Written
from tests.compiler.planted_modules import FRAMES, Block, Body, Chain, Style, V
from tests.compiler.planted_spellings import GROUPED, ROPES, SPELLINGS

KINDS = ("spatial", "camera", "motion", "joint")
STYLES: tuple[Style, ...] = ("ff_in", "plain", "blend", "modulated", "scaled", "parallel")


@st.composite
def written(draw: st.DrawFn) -> Written:
    """An attention in any spelling, with heads of their own or in groups."""
    spelling = draw(st.sampled_from((*SPELLINGS, *GROUPED)))
    shared = ["grouped"] if spelling in GROUPED else PROJECTIONS[:-1]
    projection, rope = draw(st.sampled_from(shared)), draw(st.sampled_from(sorted(ROPES)))
    return Written(spelling, projection, rope, draw(st.sampled_from(NORMS)))


@st.composite
def blocks(draw: st.DrawFn, kinds: Sequence[str]) -> tuple[Block, ...]:
    """A block of each kind, of any style."""
    found: list[Block] = []
    for kind in kinds:
        # A feed-forward between two blocks over one axis may belong to either.
        apart = not found or found[-1].kind != kind or found[-1].style == "blend"
        style = draw(st.sampled_from(STYLES if apart else STYLES[1:]))
        cross = style != "parallel" and draw(st.booleans())
        found.append(Block(kind, style, cross, draw(written())))
    return tuple(found)


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    """A chain of blocks around linears or convolutions, or one block on the stream."""
    wrap = draw(st.sampled_from(("linear", "linear", "conv", "none")))
    if wrap == "none":
        style = draw(st.sampled_from(("plain", "modulated", "scaled", "parallel")))
        cross = style != "parallel" and draw(st.booleans())
        block = Block(draw(st.sampled_from(KINDS)), style, cross, draw(written()))
        return Chain((block,), "none")
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3, unique=wrap == "conv"))
    return Chain(draw(blocks(kinds)), wrap)


@st.composite
def bodies(draw: st.DrawFn, depth: int = 2) -> Body:
    """Parts, perhaps a level with its own, and parts again."""
    parts = st.lists(st.one_of(st.none(), chains()), max_size=2).map(tuple)
    before = draw(parts)
    if depth and draw(st.booleans()):
        skip = draw(st.sampled_from(("cat", "add", "none")))
        return Body(before, draw(bodies(depth - 1)), skip, draw(parts))
    return Body(before)


def has_chain(body: Body) -> bool:
    """Whether there is anything that attends."""
    parts = (*body.before, *body.after)
    return any(parts) or (body.lower is not None and has_chain(body.lower))


def find(net: Net, call: tuple[object, ...]) -> Analysis:
    """What the compiler finds in a planted network."""
    geometry = {"views": V, "frames": FRAMES, "order": net.order}
    return analyse(capture_export(net, call), geometry)


def check_tree(body: Body, order: str, side: int = 8) -> None:
    net, call = build(body, order, side)
    found = find(net, call)
    got = {r.name: (r.kind, r.parent, r.ports[0].form) for r in found.regions}
    # Around what was planted stands the step, since the network gives what it is fed.
    planted = {one.name: (one.kind, one.parent or "step", one.form) for one in net.regions}
    assert got == {"step": ("step", None, "exit"), **planted}
    assert [(s.kind, s.query_tokens, s.key_tokens, s.heads) for s in found.sites] == net.sites(side)
    assert not found.unread
    spent = costs(net, call)
    assert sum(found.flops.values()) == sum(spent.values())
    inner = {one.name: products(one.module) for one in net.regions}
    inner["step"] = inner["core"]
    inner["core"] = [m for m in inner["core"] if m not in (net.first, net.last)]
    for region in found.regions:
        assert region.flops == sum(spent[module] for module in inner[region.name]), region.name
        assert all(len(r.ports) == 1 for r in found.regions)


SCM = Chain((Block("spatial", "ff_in", True), Block("camera", "blend"), Block("motion", "blend")))
LONE = Chain((Block("spatial", cross=True),), "none")
TREES = {
    "scm": Body((None, SCM)),
    "around_convolutions": Body((Chain(SCM.blocks, "conv"), Chain(SCM.blocks[:1], "conv"))),
    "feed_forward_first": Body((Chain((Block("camera", "blend"), Block("motion", "ff_in"))),)),
    "on_the_stream": Body((LONE, Chain((Block("motion"),), "none"), LONE)),
    "twice_the_kind": Body((Chain((*SCM.blocks[:2], *SCM.blocks[:2])),)),
    "unet": Body((SCM,), Body((SCM,), Body((LONE,)), "cat", (SCM,)), "cat", (None, LONE)),
    "skipless": Body((SCM,), Body((LONE,), Body((LONE,)), "none", (LONE,)), "none", (LONE,)),
    "added_skip": Body((SCM,), Body((None,), Body((LONE,)), "none"), "add", (LONE,)),
}


@pytest.mark.parametrize("name", TREES)
def test_the_tree_is_the_one_planted(name: str) -> None:
    check_tree(TREES[name], "BFV")


@settings(max_examples=8, deadline=None)
@given(bodies().filter(has_chain), st.sampled_from(("BFV", "BVF")))
def test_any_tree_is_the_one_planted(body: Body, order: str) -> None:
    check_tree(body, order)
