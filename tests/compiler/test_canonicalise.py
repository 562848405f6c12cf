from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from turbo4d.compiler.canonicalise import erase_dead
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.show import graph_text
from turbo4d.compiler.spelled_call import Call, trimmed

SDPA = torch.ops.aten.scaled_dot_product_attention.default
Function = Callable[[Tensor], Tensor]


class _Of(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def text(function: Function, x: Tensor) -> str:
    capture = capture_export(_Of(function).eval(), (x,))
    return graph_text(capture.module.graph, capture.table)


def in_place(x: Tensor) -> Tensor:
    y = x * 2
    y += 1
    return y.relu_()


def assigned(x: Tensor) -> Tensor:
    y = x * 2
    y[:, 1] = 0
    return y


SAME: dict[str, tuple[Function, Function]] = {
    "view": (lambda x: x.view(2, 12) + 1, lambda x: x.reshape(2, 12) + 1),
    "flatten": (lambda x: x.flatten(1) + 1, lambda x: x.reshape(2, -1) + 1),
    "unflatten": (lambda x: x.unflatten(2, (2, -1)) + 1, lambda x: x.view(2, 3, 2, 2) + 1),
    "transpose": (lambda x: x.transpose(-1, 1) + 1, lambda x: x.permute(0, 2, 1) + 1),
    "mT": (lambda x: x.mT + 1, lambda x: x.transpose(1, 2) + 1),
    "movedim": (lambda x: x.movedim(0, 2) + 1, lambda x: x.permute(1, 2, 0) + 1),
    "einsum": (lambda x: torch.einsum("abc->cab", x) + 1, lambda x: x.permute(2, 0, 1) + 1),
    "chunk": (lambda x: x.chunk(2, -1)[1] + 1, lambda x: x[..., 2:] + 1),
    "split": (lambda x: x.split([1, 3], -1)[1] + 1, lambda x: x.narrow(2, 1, 3) + 1),
    "unbind": (lambda x: x.unbind(1)[2] + 1, lambda x: x[:, -1] + 1),
    "cast": (lambda x: x.double() + 1, lambda x: x.to(torch.float64) + 1),
    "cast to itself": (lambda x: x.float() + 1, lambda x: x + 1),
    "detach": (lambda x: x.detach().clone() + 1, lambda x: x + 1),
    "contiguous": (lambda x: x.contiguous() + 1, lambda x: x + 1),
    "copy then view": (
        lambda x: x.transpose(1, 2).contiguous().view(2, 12) + 1,
        lambda x: x.transpose(1, 2).reshape(2, 12) + 1,
    ),
    "eval dropout": (lambda x: F.dropout(x, 0.3, training=False) + 1, lambda x: x + 1),
    "default arguments": (lambda x: F.layer_norm(x, (4,), None, None, 1e-5),
                          lambda x: F.layer_norm(x, (4,))),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x, None, 0.0, False),
                  lambda x: F.scaled_dot_product_attention(x, x, x)),
    "negative axis": (lambda x: x.softmax(-1), lambda x: x.softmax(2)),
    "in place": (in_place, lambda x: (x * 2 + 1).relu()),
}  # fmt: skip
DIFFERENT: dict[str, tuple[Function, Function]] = {
    "axes": (lambda x: x.transpose(0, 1) + 1, lambda x: x.transpose(0, 2) + 1),
    "bounds": (lambda x: x[..., 1:] + 1, lambda x: x[..., :3] + 1),
    "causal": (lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
               lambda x: F.scaled_dot_product_attention(x, x, x)),
    "scale": (lambda x: F.scaled_dot_product_attention(x, x, x, scale=0.1),
              lambda x: F.scaled_dot_product_attention(x, x, x)),
    "epsilon": (lambda x: F.layer_norm(x, (4,)), lambda x: F.layer_norm(x, (4,), eps=1e-6)),
    "literal": (lambda x: x * torch.tensor([1.0, 2.0, 3.0, 4.0]),
                lambda x: x * torch.tensor([1.0, 2.0, 3.0, 5.0])),
    "rounding": (lambda x: x.bfloat16().float() + 1, lambda x: x + 1),
    "a copy that packs": (
        lambda x: x[:, :2].contiguous().view(2, 8),
        lambda x: x[:, :2].reshape(2, 8),
    ),
    "assignment": (assigned, lambda x: x * 2),
    "a copy that rearranges": (lambda x: x.transpose(1, 2).contiguous() + 1,
                               lambda x: x.transpose(1, 2) + 1),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME)
def test_one_spelling(case: str) -> None:
    x = torch.arange(24.0).view(2, 3, 4)
    first, second = SAME[case]
    assert torch.equal(first(x.clone()), second(x.clone()))
    assert text(first, x) == text(second, x)


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_differs_is_told_apart(case: str) -> None:
    x = torch.arange(24.0).view(2, 3, 4)
    first, second = DIFFERENT[case]
    assert text(first, x) != text(second, x)


@pytest.mark.parametrize("case", [*SAME, *DIFFERENT])
def test_bits_and_strides_are_kept(case: str) -> None:
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    for function in {**SAME, **DIFFERENT}[case]:
        wanted = function(x.clone())
        capture = capture_export(_Of(function).eval(), (x.clone(),))
        constants = [capture.constants[row.target] for row in capture.table[:-1]]
        [got] = capture.module(*constants, x)
        assert torch.equal(got, wanted)
        assert got.stride() == wanted.stride()


def test_dead_attention_is_erased_with_what_only_it_needs() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    query = graph.call_function(torch.ops.aten.mul.Tensor, (x, 2.0))
    graph.call_function(SDPA, (query, x, x))
    graph.output((graph.call_function(torch.ops.aten.add.Tensor, (x, 1.0)),))
    assert erase_dead(graph) == 2
    assert [node.target for node in graph.nodes if node.op == "call_function"] == [
        torch.ops.aten.add.Tensor
    ]


def test_a_call_is_written_the_shortest_way() -> None:
    norm = torch.ops.aten.group_norm.default
    long = Call(norm, ("x", 32), {"eps": 1e-5, "weight": None, "cudnn_enabled": False})
    assert trimmed(long) == Call(norm, ("x", 32), {})
    part = Call(norm, ("x", 32, "w", None, 1e-6), {})
    assert trimmed(part) == part
    cast = Call(torch.ops.aten._to_copy.default, ("x",), {"dtype": torch.half, "layout": None})
    assert trimmed(cast).kwargs == {"dtype": torch.half}
