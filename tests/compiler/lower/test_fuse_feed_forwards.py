"""Feed-forwards of a network's graph become one call each; what does not fit stays."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.lower.fuse_feed_forwards import fuse_feed_forwards
from turbo4d.compiler.lower.triton_kernels import put_kernels
from turbo4d.compiler.specialise import specialise
from turbo4d.models.attention import FeedForward
from turbo4d.runtime.gated_feed_forward import OPERATOR
from turbo4d.runtime.token_attention import OPERATOR as ATTENTION

from tests.compiler.lower.test_ungroup import COMPUTE, copies, network, results

aten = torch.ops.aten


def test_every_feed_forward_is_one_call_beside_the_attentions():
    analysis, args = network("chain")
    variant = specialise(analysis, COMPUTE)
    wanted = results(variant, variant.module.graph, analysis, args)
    graph = copy.deepcopy(variant.module.graph)
    assert fuse_feed_forwards(graph) == 5
    calls = graph.find_nodes(op="call_function", target=OPERATOR)
    assert all(call.args[3] == 1e-5 and call.args[8] is not None for call in calls)
    assert not graph.find_nodes(op="call_function", target=aten.gelu.default)
    put_kernels(graph)
    assert copies(graph) == 0
    assert len(graph.find_nodes(op="call_function", target=ATTENTION)) == 2
    assert not graph.find_nodes(op="call_function", target=aten.layer_norm.default)[1:]  # spatial's
    found = results(variant, graph, analysis, args)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=2e-6, rtol=2e-6)


class Feeds(nn.Module):
    """A feed-forward whose gate or middle is not what the kernels compute."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.own = FeedForward(32)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        first, last = cast(Any, self.own.net[0]), self.own.net[2]
        value, gate = first.proj(x).chunk(2, dim=-1)
        if self.kind == "tanh":
            return last(value * nn.functional.gelu(gate, approximate="tanh"))
        middle = value * nn.functional.gelu(gate)
        return (last(middle), middle) if self.kind == "read" else last(middle)


@pytest.mark.parametrize("kind", ["tanh", "read", "double"])
def test_what_does_not_fit_stays(kind):
    dtype = torch.float64 if kind == "double" else torch.float32
    module, given = Feeds(kind).to(dtype).eval(), torch.randn(3, 5, 32, dtype=dtype)
    graph = capture_export(module, (given,), {}).module.graph
    assert fuse_feed_forwards(graph) == 0
    assert graph.find_nodes(op="call_function", target=aten.gelu.default)
