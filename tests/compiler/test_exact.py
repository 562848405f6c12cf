"""The exact form: the same numbers, the costs gone, the regions still there."""

from __future__ import annotations

import gc
import threading
import weakref
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.costs import dead_weights, variant_flops
from turbo4d.compiler.exact import exact_form, exact_passes, named_by
from turbo4d.compiler.flops import count_flops
from turbo4d.compiler.lower.eager import EagerEngine, EagerPrologue
from turbo4d.compiler.show import graph_text
from turbo4d.compiler.specialise import specialise
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.captures import build, compiled, exported
from tests.support import flat_args, nodes_of

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default
PLAIN, EXACT = (VariantKey((), (), exact=exact) for exact in (False, True))
CHAINS = ("chain", "chain_of_groups", "chain_of_volumes")


@cache
def made(name: str, dtype: torch.dtype = torch.float32) -> tuple[Analysis, tuple[Tensor, ...]]:
    """A network's analysis, and the flat arguments of one call."""
    module, call = build(name, dtype)
    analysis = analyse(capture_export(module, (), call))
    return analysis, tuple(flat_args(analysis.capture, (), call))


def outputs(name: str, dtype: torch.dtype, *, merge: bool = False) -> tuple[Tensor, Tensor]:
    """Of the plain graph and of the exact variant."""
    analysis, args = made(name, dtype)
    form = exact_form(analysis, merge_projections=merge)
    variant = specialise(analysis, EXACT, merge_projections=merge)
    with torch.no_grad():
        plain = analysis.capture.module(*args)[0]
    return plain, EagerEngine(variant)(args, EagerPrologue(form.prologue)(args), ())[0][0]


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)],
)
def test_the_same_numbers_but_for_rounding(
    name: str, dtype: torch.dtype, tolerance: float, merge: bool
) -> None:
    plain, exact = outputs(name, dtype, merge=merge)
    assert (plain - exact).abs().max() <= tolerance * plain.abs().max()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_same_numbers_for_a_whole_network(dtype: torch.dtype) -> None:
    plain, exact = outputs("sv4d_small", dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    assert (plain - exact).abs().max() <= tolerance * plain.abs().max()


def test_the_costs_are_gone() -> None:
    """By hand, for one S-C-M module: C channels, E of the context, tokens, rows of each context."""
    analysis, _ = made("chain")
    form = exact_form(analysis)
    wide, context, latent, images = 32, 24, 4, 12
    branches, frames, views, pixels = 2, 3, 2, 64
    tokens = images * pixels
    contexts = {  # kind: (channels, rows after the repeat, rows before it)
        "spatial": (context, images, branches * frames),
        "camera": (context, branches * frames * pixels, branches * frames),
        "motion": (latent, branches * views * pixels, branches * views * pixels),
    }
    label = 2 * images * 128 * 128
    embeddings = 2 * (views + frames) * (2 * wide * 4 * wide)
    gone = once = label + embeddings
    for channels, repeated, rows in contexts.values():
        queries_and_outputs = 2 * 2 * tokens * wide * wide
        keys_and_values = 2 * 2 * repeated * channels * wide
        attention = 2 * 2 * tokens * wide
        gone += queries_and_outputs + keys_and_values + attention
        once += 2 * rows * (channels * wide + wide * wide)
    plain = sum(analysis.flops.values())
    assert sum(count_flops(form.module.graph).values()) == plain - gone
    assert form.prologue.flops == once
    assert variant_flops(specialise(analysis, EXACT)) == plain - gone
    assert variant_flops(specialise(analysis, PLAIN)) == plain
    before, after = analysis.capture.module.graph, form.module.graph
    assert [len(nodes_of(graph, SDPA)) for graph in (before, after)] == [6, 3]
    # Per module: 3 cross-attentions of a query, key, value and output, 2 embeddings of 2; 1 label.
    gone_linears = 3 * 4 + 2 * 2 + 1
    assert len(nodes_of(before, aten.linear.default)) - gone_linears == len(
        nodes_of(after, aten.linear.default)
    )
    assert len(nodes_of(after, aten.layer_norm.default)) == 8
    assert nodes_of(after, aten.upsample_bilinear2d.vec) == []
    assert nodes_of(after, aten.sigmoid.default) == nodes_of(after, aten.expand.default) == []


def test_what_a_session_holds_is_accounted() -> None:
    """By hand, as above; small repeats are held repeated, and gates are two numbers each."""
    analysis, _ = made("chain")
    prologue = exact_form(analysis).prologue
    frequencies, label, views, frames, gates = 16, 12 * 128, 2 * 32, 3 * 32, 2
    shares = (12 + 2 * 3 * 64 + 2 * 2 * 64) * 32
    numbers = frequencies + label + views + frames + gates + shares
    assert prologue.size_bytes == 4 * numbers
    merged = exact_form(analysis, merge_projections=True).prologue
    assert merged.size_bytes == prologue.size_bytes + 3 * (3 * 32 * 32) * 4


def test_dead_weights_are_those_of_folded_attentions() -> None:
    analysis, _ = made("sv4d_small")
    folded = specialise(analysis, EXACT)
    blocks = sum(site.key_tokens == 1 for site in analysis.sites)
    dead = dead_weights(analysis, [folded])
    ends = ("attn2.to_q.weight", "attn2.to_k.weight", "norm2.weight", "norm2.bias")
    assert [sum(name.endswith(end) for name in dead) for end in ends] == [blocks] * 4
    assert len(dead) == 4 * blocks
    assert dead_weights(analysis, [folded, specialise(analysis, PLAIN)]) == ()


@pytest.mark.parametrize("name", [*CHAINS, "sv4d_small"])
def test_regions_keep_their_nodes_by_name(name: str) -> None:
    analysis, _ = made(name)
    plain = {node.name: node for node in analysis.capture.module.graph.nodes}
    exact = {node.name: node for node in exact_form(analysis).module.graph.nodes}
    names = named_by(analysis.regions)
    assert names
    for known in names:
        before, after = plain[known].meta["val"], exact[known].meta["val"]
        assert (before.shape, before.dtype) == (after.shape, after.dtype)


@pytest.mark.parametrize("name", ["chain", "sv4d_small"])
def test_the_values_of_regions_are_the_same(name: str) -> None:
    """A slot that an exact variant wrote is what a plain one would have written."""
    analysis, args = made(name, torch.float64)
    writes = tuple(sorted(region.name for region in analysis.regions))
    held = EagerPrologue(exact_form(analysis).prologue)(args)
    plain, exact = (
        EagerEngine(specialise(analysis, VariantKey((), writes, exact=is_exact)))
        for is_exact in (False, True)
    )
    for a, b in zip(plain(args, (), ())[1], exact(args, held, ())[1], strict=True):
        assert (a - b).abs().max() <= 1e-12 * a.abs().max()


def test_the_prologue_reads_neither_sample_nor_level() -> None:
    analysis, args = made("chain")
    prologue = exact_form(analysis).prologue
    roles = analysis.roles
    assert {roles.sample, roles.level}.isdisjoint(prologue.arg_indices)
    changed = list(args)
    for index in (roles.sample, roles.level):
        assert index is not None
        changed[index] = torch.randn_like(args[index])
    run = EagerPrologue(prologue)
    assert all(torch.equal(a, b) for a, b in zip(run(args), run(changed), strict=True))


def test_expressions_of_weights_alone_are_counted_apart() -> None:
    analysis, args = made("chain")
    prologue = exact_form(analysis).prologue
    # Frequencies of the level, two position embeddings, and a gate with its complement.
    assert len(prologue.constants) == 5
    run = EagerPrologue(prologue)
    inputs = {i for i, row in enumerate(analysis.capture.table) if row.kind == "input"}
    changed = [torch.randn_like(value) if i in inputs else value for i, value in enumerate(args)]
    same = {
        name
        for name, a, b in zip(prologue.names, run(args), run(changed), strict=True)
        if torch.equal(a, b)
    }
    assert same == prologue.constants


def test_both_doors_give_one_exact_form() -> None:
    texts = [
        [graph_text(form.module.graph), graph_text(form.prologue.module.graph)]
        for form in map(
            exact_form,
            (analyse(compiled("sv4d_small").capture), analyse(exported("sv4d_small"))),
        )
    ]
    assert texts[0] == texts[1]


def test_it_is_made_once_whatever_the_number_of_threads() -> None:
    analysis = analyse(exported("chain"))
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(id(exact_form(analysis)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert exact_form(analysis, merge_projections=True) is not exact_form(analysis)


def test_it_does_not_outlive_its_analysis() -> None:
    analysis = analyse(exported("chain"))
    form = weakref.ref(exact_form(analysis).module)
    del analysis
    gc.collect()
    assert form() is None


def test_the_captured_graph_stays_as_it_is() -> None:
    analysis = analyse(exported("chain"))
    before = graph_text(analysis.capture.module.graph)
    exact_form(analysis, merge_projections=True)
    assert graph_text(analysis.capture.module.graph) == before


def test_its_graphs_are_dumped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURBO4D_DUMP", str(tmp_path))
    analysis = analyse(exported("chain"))
    exact_form(analysis)
    written = {path.name for path in (tmp_path / "exact").iterdir()}
    for number, pass_ in enumerate(exact_passes(analysis), start=1):
        assert f"{number:02}.{pass_.name}.after.txt" in written
