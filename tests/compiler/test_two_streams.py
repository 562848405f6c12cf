"""Chains with two ports: what they hold, and that a plan over them is what the modules do."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.flops import count_flops
from turbo4d.compiler.specialise import specialise
from turbo4d.runtime.action import BYPASS, REUSE, Action
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.captures import analysed, build, exported
from tests.compiler.legal_plans import Rows, legal_rows, run_plan
from tests.compiler.plan_interpreter import Interpreter, Values
from tests.support import flat_args

NAMES = ("cog_dit", "hunyuan_dit", "mm_dit")
STEPS = 4


@cache
def network(name: str) -> tuple[Any, dict[str, Any], Analysis]:
    module, call = build(name, torch.float64)
    return module, call, analyse(exported(name, torch.float64), gates=False)


def chains(name: str) -> list[str]:
    return [region.name for region in analysed(name).regions if region.kind == "chain"]


@pytest.mark.parametrize(
    ("name", "ports"), [("cog_dit", [2, 2]), ("hunyuan_dit", [2, 2, 1, 1]), ("mm_dit", [2, 2, 1])]
)
def test_each_joint_block_is_a_chain_with_a_port_for_each_stream(
    name: str, ports: list[int]
) -> None:
    regions = [region for region in analysed(name).regions if region.kind == "chain"]
    assert [region.name for region in regions] == [f"stack.{n}.chain" for n in range(len(ports))]
    assert [len(region.ports) for region in regions] == ports
    assert {region.parent for region in regions} == {"core"}
    assert {len(region.sites) for region in regions} == {1}
    for region in regions[: ports.count(2)]:
        video, text = region.ports
        assert (video.form, video.shape, text.form, text.shape) == (
            "difference", (2, 48, 16), "difference", (2, 5, 16),
        )  # fmt: skip
        assert region.slot_bytes == 4 * 2 * (48 + 5) * 16
        assert set(region.entries) == {video.entry, text.entry}
    for before, after in pairwise(regions[: ports.count(2)]):
        assert [port.exit for port in before.ports] == [port.entry for port in after.ports]


def test_the_last_block_takes_both_streams_and_gives_one() -> None:
    *_, before, last = analysed("mm_dit").regions
    assert set(last.entries) == {port.exit for port in before.ports}
    assert [port.entry for port in last.ports] == [before.ports[0].exit]


def test_the_text_comes_in_from_outside_the_stream() -> None:
    text = analysed("mm_dit").regions[2].ports[1]
    assert text.entry not in analysed("mm_dit").roles.stream
    nodes = {node.name: node for node in analysed("mm_dit").capture.module.graph.nodes}
    assert nodes[str(text.entry)].args[1].name == "w_words_weight"  # type: ignore[union-attr]


def test_a_joint_chain_costs_its_products() -> None:
    """Per stream: modulation, query, key and value, out, feed-forward; and attention over both."""
    batch, video, text, channels = 2, 48, 5, 16
    modulation = 2 * 2 * batch * channels * 6 * channels
    tokens = batch * (video + text)
    streams = 2 * tokens * channels * (3 + 1 + 2 + 2) * channels
    attention = 4 * tokens * (video + text) * channels
    costs = {region.name: region.flops for region in analysed("mm_dit").regions}
    assert costs["stack.1.chain"] == modulation + streams + attention
    # The last block ends with no text: neither its projection nor its feed-forward.
    spared = 2 * batch * text * channels * (1 + 2 + 2) * channels
    assert costs["stack.2.chain"] == modulation + streams + attention - spared


def calls(call: dict[str, Any]) -> list[dict[str, Any]]:
    """One call per step, each of another sample."""
    generator = torch.Generator().manual_seed(2)
    name = next(iter(call))
    noise = [torch.randn(call[name].shape, generator=generator).double() for _ in range(STEPS)]
    return [{**call, name: call[name] + 0.3 * part} for part in noise]


def check_plan(name: str, rows: Rows, *, exact: bool = False) -> None:
    module, call, analysis = network(name)
    steps = calls(call)
    interpreter = Interpreter({**dict.fromkeys(chains(name), "core"), "core": None})

    def visit(number: int, streams: Values, run: Callable[[Values], Values]) -> Values:
        return interpreter.streams(f"stack.{number}.chain", streams, run)

    got = run_plan(analysis, rows, [flat_args(analysis.capture, (), s) for s in steps], exact)
    for row, step, output in zip(rows, steps, got, strict=True):
        interpreter.begin(row)
        with torch.no_grad():
            expected = module.run(visit, **step)
        if exact:
            torch.testing.assert_close(output, expected, atol=1e-12, rtol=1e-12)
        else:
            assert torch.equal(output, expected), rows


@st.composite
def plans(draw: st.DrawFn) -> tuple[str, Rows]:
    """A network and rows that are legal for its chains."""
    name = draw(st.sampled_from(NAMES))
    return name, draw(legal_rows(dict.fromkeys(chains(name)), set(), STEPS))


@settings(max_examples=8, deadline=None)
@given(plans())
def test_any_legal_plan_is_what_the_modules_do(drawn: tuple[str, Rows]) -> None:
    check_plan(*drawn)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_all_chains_at_once_are_what_the_modules_do(name: str, exact: bool) -> None:
    """Reused together, bypassed together, and by turns: entries are others' exits."""
    names = chains(name)
    turns = {n: ("reuse", "bypass")[i % 2] for i, n in enumerate(names)}
    rows = [{}, dict.fromkeys(names, "reuse"), dict.fromkeys(names, "bypass"), turns]
    check_plan(name, rows, exact=exact)


@pytest.mark.parametrize("action", [REUSE, BYPASS])
def test_a_slot_is_handed_over_whole(action: Action) -> None:
    """The last block reads the text and gives none: where it is not computed, nothing does."""
    _, _, analysis = network("mm_dit")
    first, second, last = chains("mm_dit")
    variant = specialise(analysis, VariantKey(((second, REUSE), (last, action)), (), exact=False))
    slots = [node for node in variant.module.graph.nodes if node.name.startswith("slot_")]
    assert variant.reads.count(second) == 2
    assert [(slot.name, bool(slot.users)) for slot in slots if second in name_of(slot)] == [
        ("slot_stack_1_chain", True), ("slot_stack_1_chain_1", False),
    ]  # fmt: skip
    # And what computed the text in the first block is gone: its projection and feed-forward.
    alone = specialise(analysis, VariantKey(((second, REUSE),), (), exact=False))
    costs = [sum(count_flops(one.module.graph).values()) for one in (alone, variant)]
    known = {region.name: region.flops for region in analysis.regions}
    assert costs[0] - costs[1] == known[last] + 2 * 2 * 5 * 16 * (1 + 2 + 2) * 16
    assert first not in variant.reads


def name_of(slot: fx.Node) -> str:
    """The region whose slot a placeholder takes, as names of regions are written."""
    return slot.name.removeprefix("slot_").removesuffix("_1").replace("_", ".")
