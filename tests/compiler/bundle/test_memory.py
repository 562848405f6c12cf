"""What running a bundle takes, told from its graphs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import fx, nn
from turbo4d.compiler.bundle.memory import MemoryNeed, check_memory, held_bytes, memory_need
from turbo4d.passes.base import emit
from turbo4d.runtime.errors import MemoryPlanError

from tests.compiler.bundle.networks import parts

aten = torch.ops.aten
NEED = MemoryNeed(weights=1000, prologue=10, slots=300, inside={"a": 50, "b": 90})


def graph_of(*, view: bool) -> fx.GraphModule:
    """Three values of 400 bytes after each other, and a view that keeps the first or does not."""
    graph = fx.Graph()
    given = graph.placeholder("i_0")
    given.meta["val"] = torch.empty(100, device="meta")
    with torch.no_grad():
        first = emit(graph, aten.sin.default, given)
        kept = emit(graph, aten.reshape.default, first, [10, 10])
        second = emit(graph, aten.cos.default, first)
        third = emit(graph, aten.sin.default, second)
        if view:
            third = emit(
                graph, aten.add.Tensor, third, emit(graph, aten.reshape.default, kept, [100])
            )
        last = emit(graph, aten.neg.default, third)
    graph.output((last,))
    return fx.GraphModule(nn.Module(), graph)


def test_a_value_is_held_until_its_last_reader() -> None:
    assert held_bytes(graph_of(view=False)) == 800
    assert held_bytes(graph_of(view=True)) == 1200


def test_the_parts_add_up() -> None:
    need = memory_need(parts())
    assert need.weights == sum(value.numel() * 4 for value in parts().weights.values())
    assert need.slots == parts().check.peak_bytes > 0
    assert need.widest in ("compute", "compute+core.w")
    inside = need.inside[need.widest]
    assert need.total == need.weights + need.prologue + need.slots + inside
    assert need.inside["core.reuse"] < inside / 10


def test_a_conditional_graph_holds_no_more_than_what_it_computes_all() -> None:
    one = memory_need(parts("conditional")).inside["conditional"]
    every = memory_need(parts()).inside["compute+core.w"]
    assert every <= one <= 1.2 * every


def test_what_does_not_fit_is_refused_with_what_to_change() -> None:
    check_memory(NEED, None, "p")
    check_memory(NEED, 1400, "p")
    said = (
        "plan 'p' needs 1400 bytes and the target has {}: 1000 weights, 10 values of the prologue, "
        "300 slots, 90 inside 'b'. {}"
    )
    for bound, remedy in (
        (1399, "Set max_cache_bytes to 299, or take a plan with fewer slots."),
        (1000, "Build in a dtype of half the size."),
        (50, "Build in a smaller dtype, for fewer views or frames, or for a device with more "
             "memory."),
    ):  # fmt: skip
        with pytest.raises(MemoryPlanError) as caught:
            check_memory(NEED, bound, "p")
        assert str(caught.value) == said.format(bound, remedy)


def test_of_weights_that_are_one_only_one_counts() -> None:
    found = parts()
    name, value = next(iter(found.weights.items()))
    twice = dataclasses.replace(found, weights={**found.weights, f"{name} again": value})
    assert memory_need(twice).weights == memory_need(found).weights
