"""Lowering triton-kernels: where the kernels go, computed on the CPU by the same operator."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import fx
from turbo4d.compiler.backend import lower
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.lower.eager import EagerEngine
from turbo4d.compiler.lower.triton_kernels import TritonKernelsLowering, use_tiny_attention
from turbo4d.compiler.specialise import specialise
from turbo4d.runtime.tiny_attention import OPERATOR
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.two_chains import two_chains

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default
KEYS = [VariantKey((), (), exact=False), VariantKey((), ("core",), exact=True)]


def count(graph: fx.Graph, target: Any) -> int:
    return len(graph.find_nodes(op="call_function", target=target))


@pytest.mark.parametrize("key", KEYS)
def test_every_attention_over_few_tokens_is_one_call(key):
    _, _, analysis, args, prologue = two_chains()
    variant = specialise(analysis, key)
    before = count(variant.module.graph, SDPA)
    engine = TritonKernelsLowering().compile(variant)
    assert count(variant.module.graph, SDPA) == before == 4  # the variant is left as it was
    given = prologue if key.exact else ()
    wanted, wanted_slots = EagerEngine(variant)(args, given, ())
    found, found_slots = engine(args, given, ())
    for one, other in zip((*found, *found_slots), (*wanted, *wanted_slots), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    graph = copy.deepcopy(variant.module.graph)
    assert use_tiny_attention(graph) == 4
    assert (count(graph, SDPA), count(graph, OPERATOR)) == (0, 4)


def test_what_comes_out_is_read_without_a_copy():
    """The heads of a token lie side by side, so that the projection behind takes a view."""
    _, _, analysis, _, _ = two_chains()
    graph = copy.deepcopy(specialise(analysis, KEYS[0]).module.graph)
    use_tiny_attention(graph)
    for node in graph.find_nodes(op="call_function", target=OPERATOR):
        value = node.meta["val"]
        assert value.is_contiguous()
        reader = node
        while len(reader.users) == 1 and reader.target is not aten.reshape.default:
            [reader] = reader.users
        assert reader.target is aten.reshape.default
        before = reader.args[0].meta["val"]
        assert aten.view.default(before, list(reader.meta["val"].shape)).shape


class Attends(torch.nn.Module):
    def forward(self, q: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        attend = torch.nn.functional.scaled_dot_product_attention
        long = q.repeat(1, 1, 5, 1)
        return (
            attend(q, q, q, attn_mask=mask), attend(q, q, q, is_causal=True),
            attend(long, long, long), attend(q, long, long), attend(q, q, q, scale=0.5),
        )  # fmt: skip


def test_a_mask_an_order_and_many_tokens_stay_with_torch():
    given = (torch.randn(3, 2, 5, 8), torch.ones(5, 5, dtype=torch.bool))
    program = torch.export.export(Attends(), given, strict=False)
    module = program.module()
    graph = program.graph
    wanted = module(*given)
    assert use_tiny_attention(graph) == 1
    assert count(graph, SDPA) == 4
    found = program.module()(*given)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, wanted, strict=True))


def test_a_cpu_is_refused():
    _, _, analysis, _, _ = two_chains()
    text = (
        "lowering 'triton-kernels' cannot take variant 'compute': its kernels run on CUDA, and "
        "values are on 'cpu'."
    )
    with pytest.raises(LowerError, match=f"^{re.escape(text)}$"):
        lower(specialise(analysis, KEYS[0]), TritonKernelsLowering())
