"""Whatever way an attention is written, it is found, and its kind is what it runs over."""

from __future__ import annotations

import pytest
from turbo4d.compiler.analysis import Analysis, analyse

from tests.compiler.captures import capture_by_compile
from tests.compiler.planted import Net, build
from tests.compiler.planted_attention import NORMS, PROJECTIONS, Written
from tests.compiler.planted_modules import FRAMES, Block, Body, Chain, V
from tests.compiler.planted_spellings import GROUPED, ROPES, SPELLINGS
from tests.compiler.test_planted import find

WAYS = {
    **{name: Written(name) for name in SPELLINGS},
    **{name: Written(name, "grouped") for name in GROUPED},
    **{f"projection_{name}": Written(projection=name) for name in PROJECTIONS[1:-1]},
    **{f"rope_{name}": Written(rope=name) for name in ROPES if name != "none"},
    **{f"norm_{name}": Written(norm=name) for name in NORMS if name != "none"},
    "all_at_once": Written("einsum_of_tokens", "by_head", "complex", "rms"),
}


def body(*ways: Written, turn: int = 0) -> Body:
    """For each way a spatial block with a cross-attention, and one over views or frames."""
    blocks: list[Block] = []
    for number, how in enumerate(ways, turn):
        other = Block(("camera", "motion", "joint")[number % 3], "plain", False, how)
        blocks += [Block("spatial", "plain", True, how), other]
    return Body((Chain(tuple(blocks)),))


def check(found: Analysis, net: Net, *ways: Written) -> None:
    """The sites are those planted, and nothing else looks like one."""
    got = [(s.kind, s.query_tokens, s.key_tokens, s.heads) for s in found.sites]
    assert got == net.sites(4)
    groups = {"spatial": 6, "cross": 6, "camera": 3 * 16, "motion": 2 * 16, "joint": 1}
    assert [site.groups for site in found.sites] == [groups[site.kind] for site in found.sites]
    blocks = [one.name for one in net.regions if one.kind == "block"]
    assert list(dict.fromkeys(site.region for site in found.sites)) == blocks
    notes = [site.note.removeprefix("over F V H W").removeprefix(", ") for site in found.sites]
    assert notes == [how.masked for how in ways for _ in range(3)]
    assert not found.unread


@pytest.mark.parametrize("way", WAYS)
def test_it_is_found_with_its_kind(way: str) -> None:
    # Each over views or over frames, by turns.
    turn = list(WAYS).index(way) % 2
    net, call = build(body(WAYS[way], turn=turn))
    check(find(net, call), net, WAYS[way])


def test_both_doors_see_it() -> None:
    ways = [WAYS[name] for name in ("einsum_of_keys", "baddbmm", "by_hand", "all_at_once")]
    net, call = build(body(*ways))
    seen = capture_by_compile(net, dict(zip(("x", "t", "text"), call, strict=True)))
    geometry = {"views": V, "frames": FRAMES, "order": "BFV"}
    check(analyse(seen.capture, geometry), net, *ways)
