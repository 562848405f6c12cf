"""A graph cut into segments: equal runs have equal text, and together they are the graph."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, fx, nn
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.segments import Segment, cuts_of, split
from turbo4d.compiler.show import graph_text
from turbo4d.compiler.specialise import Variant, specialise
from turbo4d.passes.base import returned
from turbo4d.runtime.action import BYPASS, REUSE
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.captures import analysed
from tests.compiler.two_chains import two_chains

CHAINS = ("stack.0.chain", "stack.1.chain")
COMPUTE = VariantKey((), (), exact=True)
RECORD = VariantKey((), ("core", *CHAINS), exact=True)
REUSED = VariantKey(tuple((name, REUSE) for name in CHAINS), (), exact=True)
BYPASSED = VariantKey(tuple((name, BYPASS) for name in CHAINS), (), exact=True)
CORE = VariantKey((("core", REUSE),), (), exact=True)
VARIANTS = (COMPUTE, RECORD, REUSED, BYPASSED, CORE)


def variant(key: VariantKey) -> Variant:
    return specialise(two_chains()[2], key)


def run(segments: Sequence[Segment], graph: fx.Graph, given: Sequence[Tensor]) -> list[Tensor]:
    """What the segments give, each executed by itself."""
    names = [node.name for node in graph.nodes if node.op == "placeholder"]
    values = dict(zip(names, given, strict=True))
    for segment in segments:
        module = fx.GraphModule(nn.Module(), segment.graph)
        results = module(*[values[name] for name in segment.inputs])
        values.update(zip(segment.outputs, results, strict=True))
    return [values[node.name] for node in returned(graph)]


@pytest.mark.parametrize("key", VARIANTS, ids=lambda key: key.name)
def test_the_segments_are_the_graph(key: VariantKey) -> None:
    made = variant(key)
    graph = made.module.graph
    given = [
        torch.randn(node.meta["val"].shape) for node in graph.nodes if node.op == "placeholder"
    ]
    segments = split(graph, made.cuts)
    found = run(segments, graph, given)
    assert all(map(torch.equal, found, made.module(*given)))


def test_equal_runs_have_equal_text() -> None:
    """Two chains of one shape are one segment, in every variant; a slot stands for either."""
    texts = {
        key.name: [graph_text(s.graph) for s in split(variant(key).module.graph, variant(key).cuts)]
        for key in VARIANTS
    }
    compute = texts[COMPUTE.name]
    assert (len(compute), len(set(compute))) == (7, 5)
    assert texts[RECORD.name] == compute
    assert set(texts[REUSED.name]) < set(compute)
    assert set(texts[BYPASSED.name]) < set(compute)
    assert set(texts[CORE.name]) < set(compute)
    assert not any("stack" in text or "chain" in text for text in compute)


def test_a_cut_that_is_not_there_is_passed_over() -> None:
    graph = variant(COMPUTE).module.graph
    assert len(split(graph, {"no_such_node"})) == len(split(graph, ()))


def test_blocks_cut_only_where_they_are_named() -> None:
    regions = two_chains()[2].regions
    named = VariantKey((("stack.0.camera", REUSE),), (), exact=True)
    value = next(region.value for region in regions if region.name == "stack.0.camera")
    assert value not in cuts_of(regions, COMPUTE)
    assert value in cuts_of(regions, named)


class Pieces(nn.Module):
    """Across the convolution that ends a segment go a part of a tuple, and a view of another."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        values, places = torch.topk(x, 2)
        turned = values.transpose(0, 1)[None]
        return torch.conv2d(turned, weight, padding=1).sin() + turned.cos() + places[0, 0]


def test_tuples_stay_inside_and_views_are_taken_again() -> None:
    call = (torch.randn(4, 4, 5), torch.randn(4, 4, 3, 3))
    graph = capture_export(Pieces().eval(), call, {}).module.graph
    first, second = split(graph, ())
    assert first.outputs == ("getitem", "getitem_1", "conv2d")
    assert set(second.inputs) == set(first.outputs)


def test_sixteen_chains_are_four() -> None:
    """SV4D at full size: every segment, and the distinct ones that are compiled."""
    analysis = analysed("sv4d")
    cuts = cuts_of(analysis.regions, COMPUTE)
    segments = split(analysis.capture.module.graph, cuts)
    chains = [segment for segment in segments if len(segment.graph.nodes) > 200]
    assert (len(chains), len({graph_text(segment.graph) for segment in chains})) == (16, 4)
