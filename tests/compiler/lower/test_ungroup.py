"""Attention from norm to sum in a network's graph, and what is around it without copies."""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from turbo4d.compiler.analysis import analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.lower.eager import EagerEngine, EagerPrologue
from turbo4d.compiler.lower.fuse_attention import fuse_attention
from turbo4d.compiler.lower.lying import Lying
from turbo4d.compiler.lower.triton_kernels import put_kernels
from turbo4d.compiler.lower.ungroup import ungroup
from turbo4d.compiler.specialise import Variant, specialise
from turbo4d.models.attention import Attention
from turbo4d.runtime.action import REUSE, Action
from turbo4d.runtime.token_attention import OPERATOR
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.captures import build
from tests.support import flat_args

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default
RELEVANCE = ("stack.0.spatial.relevance",)
COMPUTE = VariantKey((), (), exact=True)


def copies(graph: fx.Graph) -> int:
    """Reshapes that cannot be views."""
    found = 0
    for node in graph.find_nodes(op="call_function", target=aten.reshape.default):
        source = node.args[0].meta["val"]
        given = torch.empty_strided(source.shape, source.stride(), device="meta")
        try:
            given.view(node.meta["val"].shape)
        except RuntimeError:
            found += 1
    return found


def network(name: str) -> tuple[Any, list[Tensor]]:
    module, call = build(name)
    analysis = analyse(capture_export(module, (), call))
    return analysis, flat_args(analysis.capture, (), call)


def results(variant: Variant, graph: fx.Graph, analysis: Any, args: list[Tensor]) -> list[Tensor]:
    module = fx.GraphModule(variant.module, graph)
    torch.manual_seed(0)
    slots = [torch.randn(value.shape) for value in variant.slot_values]
    prologue = EagerPrologue(exact_form(analysis).prologue)(args)
    outputs, slots_out = EagerEngine(replace(variant, module=module))(args, prologue, slots)
    return [*outputs, *slots_out]


@pytest.mark.parametrize(
    ("name", "before"), [("chain", 2), ("chain_of_groups", 4), ("chain_of_volumes", 1)]
)
def test_views_and_frames_are_read_where_they_lie(name, before):
    analysis, args = network(name)
    variant = specialise(analysis, COMPUTE)
    wanted = results(variant, variant.module.graph, analysis, args)
    graph = copy.deepcopy(variant.module.graph)
    sites = {"chain": 2, "chain_of_groups": 2, "chain_of_volumes": 1}[name]
    report = fuse_attention(graph)
    assert (len(report.rewritten), copies(graph)) == (sites, before)
    assert [skip.reason for skip in report.skipped] == [
        f"it is over {tokens} tokens; wanted 2 to 32" for tokens in (64, 128)[: 3 - sites]
    ]
    assert ungroup(graph) == sites
    assert (copies(graph), len(graph.find_nodes(op="call_function", target=SDPA))) == (0, 3 - sites)
    for node in graph.find_nodes(op="call_function", target=OPERATOR):
        assert isinstance(node.args[0], fx.Node)
        assert node.meta["val"].stride() == node.args[0].meta["val"].stride()
        assert node.args[11] is not None  # the sum is in it
        assert node.args[3] == 1e-5  # the norm is in it
    found = results(variant, graph, analysis, args)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize(
    "key",
    [
        VariantKey((), ("stack.0.camera", "stack.0.motion"), exact=True),
        VariantKey((("stack.0.camera", REUSE),), (), exact=True),
        VariantKey(
            (("stack.0.motion", Action("prune", keep=0.5)),), (), exact=True, relevance=RELEVANCE
        ),
    ],
)
def test_slots_are_what_they_were(key):
    """What is recorded and read keeps its shape and strides; pruned groups stay gathered."""
    analysis, args = network("chain")
    variant = specialise(analysis, key)
    wanted = results(variant, variant.module.graph, analysis, args)
    graph = copy.deepcopy(variant.module.graph)
    assert len(put_kernels(graph).rewritten) >= 1
    found = results(variant, graph, analysis, args)
    for one, other in zip(found, wanted, strict=True):
        assert one.stride() == other.stride()
        assert torch.allclose(one, other, atol=2e-6, rtol=2e-6)


@pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1" or find_spec("triton") is None,
    reason="needs the package triton, and TRITON_INTERPRET=1 from the start of the process",
)
@pytest.mark.parametrize("name", ["chain", "chain_of_groups"])
def test_the_kernels_themselves_carry_a_network(name):
    """Every attention over views and frames by Triton's interpreter, in the place of torch."""
    from turbo4d.runtime.engines.triton_token_attention import launch

    def kernels(x: Tensor, *given: Any) -> Tensor:
        weight, bias, eps, query, key, value, project, last, heads, scale, add = given
        weights = (query, key, value, project, last)
        return launch(x, (weight, bias, eps), weights, heads, scale, add)

    analysis, args = network(name)
    variant = specialise(analysis, COMPUTE)
    wanted = results(variant, variant.module.graph, analysis, args)
    graph = copy.deepcopy(variant.module.graph)
    assert len(put_kernels(graph).rewritten) == 2
    for node in graph.find_nodes(op="call_function", target=OPERATOR):
        node.target = kernels
    found = results(variant, graph, analysis, args)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=2e-6, rtol=2e-6)


class Attends(nn.Module):
    """An attention of the family, with what keeps it from being fused."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.own = Attention(32, 32, 16)
        if kind == "bias":
            self.own.to_q = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "context":
            return self.own(x, x * 2)
        if self.kind == "long":
            return self.own(x.repeat(1, 9, 1))
        if self.kind == "read":
            own, q = self.own, self.own.to_q(x)
            q, k, v = (own._split(each) for each in (q, own.to_k(x), own.to_v(x)))
            return nn.functional.scaled_dot_product_attention(q, k, v)
        return self.own(x)


REFUSED = {
    "bias": "its queries, keys or values have a bias",
    "double": "it is in torch.float64; wanted one of 32 bits or fewer",
    "context": "its queries, keys and values are not linears of one value",
    "long": "it is over 45 tokens; wanted 2 to 32",
    "read": "no linear alone reads what it gives",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_fused_says_why(kind):
    dtype = torch.float64 if kind == "double" else torch.float32
    module, given = Attends(kind).to(dtype).eval(), torch.randn(3, 5, 32, dtype=dtype)
    graph = capture_export(module, (given,), {}).module.graph
    report = fuse_attention(graph)
    assert not report.rewritten
    assert [skip.reason for skip in report.skipped] == [REFUSED[kind]]


def test_rows_are_followed_through_reshapes_and_permutes():
    grid = Lying.of((2, 3, 4, 6, 32))  # branches, frames, views, pixels, channels
    camera = grid.permuted([0, 1, 3, 2, 4])
    assert camera is not None
    camera = camera.reshaped((36, 4, 32))
    assert camera is not None
    assert camera.axes == (((6, 24), (6, 1)), ((4, 6),))
    assert camera.sizes == [6, 4, 6]
    assert not camera.plain
    assert camera.groups is not None
    assert camera.groups.shape == (6, 6, 4)
    back = camera.reshaped((2, 3, 6, 4, 32))
    assert back is not None
    back = back.permuted([0, 1, 3, 2, 4])
    assert back is not None
    assert back.plain
    cycle = Lying.of((2, 3, 4, 32)).permuted([1, 2, 0, 3])
    assert cycle is not None
    assert (cycle.order, cycle.back) == ([1, 2, 0, 3], [2, 0, 1, 3])
    assert grid.reshaped((2, 3, 5, 32)) is None  # other rows
    assert grid.reshaped((9, 16, 32)) is None  # across digits
    assert grid.permuted([0, 1, 2, 4, 3]) is None  # channels move
    assert camera.takes((36, 1, 32))
    assert camera.takes((32,))
    assert not camera.takes((12, 4, 32))
    assert camera.apart((36, 1, 32)) == [6, 6, 1, 32]
