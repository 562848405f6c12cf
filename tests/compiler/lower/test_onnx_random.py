"""Random graphs of supported calls: ONNX Runtime stays within what rounding can account for.

Every value carries a bound on how far two computations of it can lie apart: a call passes on what
its operands bring, times how much it can enlarge a difference, and adds the roundings of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from turbo4d.passes.base import emit
from turbo4d.runtime.engines.onnxruntime import OnnxSession

from tests.compiler.lower.onnx_graphs import variant_of, write

pytest.importorskip("onnx", reason="turbo4d[cpu] is not installed")
pytest.importorskip("onnxruntime", reason="turbo4d[cpu] is not installed")
aten = torch.ops.aten
SHAPE = (2, 4, 6)


@dataclass(frozen=True)
class Move:
    """One way to go on.

    Args:
        operands: how many values it takes.
        write: the calls; what comes out has the shape of what goes in.
        enlarges: the most that a difference of any operand, element by element, can grow.
        rounds: how many times it rounds on the way to an element, in last places of the largest.
    """

    operands: int
    write: Callable[..., fx.Node]
    enlarges: float = 1.0
    rounds: int = 4


def one(target: Any, *further: Any, enlarges: float = 1.0) -> Move:
    return Move(1, lambda graph, x: emit(graph, target, x, *further), enlarges)


def _turned(graph: fx.Graph, x: fx.Node) -> fx.Node:
    turned = emit(graph, aten.permute.default, x, [2, 0, 1])
    return emit(graph, aten.reshape.default, turned, list(SHAPE))


def _crossed(graph: fx.Graph, x: fx.Node, y: fx.Node) -> fx.Node:
    parts = [emit(graph, aten.slice.Tensor, x, 1, 0, 2), emit(graph, aten.slice.Tensor, y, 1, 2, 4)]
    return emit(graph, aten.cat.default, parts, 1)


def _chosen(graph: fx.Graph, x: fx.Node, y: fx.Node) -> fx.Node:
    """By an input's sign: by a computed one a rounding could change the choice."""
    first = next(iter(graph.nodes))
    return emit(graph, aten.where.self, emit(graph, aten.gt.Scalar, first, 0), x, y)


def _spread(graph: fx.Graph, x: fx.Node) -> fx.Node:
    mean = emit(graph, aten.mean.dim, x, [1], True)
    return emit(graph, aten.expand.default, mean, list(SHAPE))


def _attended(graph: fx.Graph, x: fx.Node, y: fx.Node) -> fx.Node:
    """Queries and keys within 1: a weight changes by no more than its score, 6 / sqrt(6) each."""
    query, key = (emit(graph, aten.tanh.default, value) for value in (x, y))
    bounded = emit(graph, aten.sin.default, y)
    return emit(graph, aten.scaled_dot_product_attention.default, query, key, bounded)


MOVES = [
    *(one(target) for target in (
        aten.neg.default, aten.abs.default, aten.relu.default, aten.tanh.default, aten.sin.default,
        aten.cos.default, aten.sigmoid.default, aten.clone.default,
    )),
    one(aten.silu.default, enlarges=1.1),
    one(aten.gelu.default, enlarges=1.13),
    one(aten.leaky_relu.default, 0.3),
    one(aten.softplus.default),
    one(aten.clamp.default, -0.7, 0.6),
    one(aten.mul.Tensor, 0.3),
    one(aten.softmax.int, 1),
    one(aten.flip.default, [0, 2]),
    one(aten.roll.default, [2], [1]),
    # With an epsilon of 1 no deviation is so small that dividing by it enlarges.
    one(aten.layer_norm.default, [6], None, None, 1.0, enlarges=4.0),
    Move(1, _turned), Move(1, _spread),
    Move(2, lambda graph, x, y: emit(graph, aten.lerp.Scalar, x, y, 0.25)),
    Move(2, lambda graph, x, y: emit(graph, aten.maximum.default, x, y)),
    Move(2, lambda graph, x, y: emit(graph, aten.add.Tensor, x, y)),
    Move(2, lambda graph, x, y: emit(graph, aten.sub.Tensor, x, y)),
    Move(2, _crossed), Move(2, _chosen),
    Move(2, _attended, enlarges=2 * 6**0.5 + 1, rounds=16),
]  # fmt: skip

turns = st.lists(
    st.tuples(st.sampled_from(range(len(MOVES))), st.integers(0, 99), st.integers(0, 99)),
    min_size=3, max_size=12,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(turns=turns, seed=st.integers(0, 9), dtype=st.sampled_from([torch.float32, torch.float16]))
def test_random_graphs_mean_the_same(
    turns: list[tuple[int, int, int]], seed: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    given = [torch.randn(SHAPE, generator=generator).to(dtype) for _ in range(2)]
    module, bounds = random_graph(turns, given)
    with TemporaryDirectory() as folder:
        file = write(variant_of(module, 2, outputs=len(bounds)), Path(folder))
        found = OnnxSession(file.path, threads=1)(given)
    for got, wanted, bound in zip(found, module(*given), bounds, strict=True):
        assert got.dtype == wanted.dtype == dtype
        assert (got - wanted).abs().max().item() <= bound


def random_graph(
    turns: list[tuple[int, int, int]], given: list[Tensor]
) -> tuple[fx.GraphModule, list[float]]:
    """A graph whose every value is an output, and how far apart two computations of each can be."""
    graph = fx.Graph()
    values: list[fx.Node] = []
    for at, tensor in enumerate(given):
        values.append(graph.placeholder(f"i_{at}"))
        values[-1].meta["val"] = tensor
    bounds = [0.0] * len(given)
    unit = torch.finfo(given[0].dtype).eps / 2
    for move_at, *picked in turns:
        move = MOVES[move_at]
        places = [place % len(values) for place in picked[: move.operands]]
        made = move.write(graph, *(values[place] for place in places))
        largest = max(float(values[place].meta["val"].abs().max()) for place in places) + 1
        brought = sum(bounds[place] for place in places)
        bounds.append(move.enlarges * brought + move.rounds * unit * largest)
        values.append(made)
    graph.output(tuple(values[len(given) :]))
    return fx.GraphModule(nn.Module(), graph), bounds[len(given) :]
