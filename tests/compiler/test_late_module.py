"""A graph's Python is written when it is called, and anew after the graph was changed."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import fx, nn
from turbo4d.compiler.backend import lower
from turbo4d.compiler.compat import late_module, written
from turbo4d.compiler.lower.eager import EagerLowering
from turbo4d.compiler.specialise import specialise
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.denoisers import captured

aten = torch.ops.aten


@pytest.fixture
def writings(monkeypatch: pytest.MonkeyPatch) -> list[fx.Graph]:
    """The graphs whose Python was written."""
    seen: list[fx.Graph] = []
    write = fx.Graph.python_code

    def counted(graph: fx.Graph, *args: object, **kwargs: object) -> object:
        seen.append(graph)
        return write(graph, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(fx.Graph, "python_code", counted)
    return seen


def doubled() -> fx.Graph:
    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.output((graph.call_function(aten.mul.Tensor, (x, 2)),))
    return graph


def test_it_is_written_at_the_first_call(writings: list[fx.Graph]) -> None:
    module = late_module(nn.Module(), doubled())
    assert not writings
    assert [module(torch.ones(2))[0].tolist() for _ in range(2)] == [[2.0, 2.0]] * 2
    assert len(writings) == 1


def test_a_changed_graph_is_written_again(writings: list[fx.Graph]) -> None:
    module = late_module(nn.Module(), doubled())
    module(torch.ones(1))
    [call] = module.graph.find_nodes(op="call_function", target=aten.mul.Tensor)
    call.update_arg(1, 3)
    module.recompile()
    assert len(writings) == 1
    assert module(torch.ones(1))[0].item() == 3
    assert len(writings) == 2


def test_who_looks_at_the_forward_sees_the_arguments() -> None:
    module = written(late_module(nn.Module(), doubled()))
    assert [*inspect.signature(module.forward).parameters] == ["x"]


def test_a_variant_is_written_once_by_what_calls_it(writings: list[fx.Graph]) -> None:
    _, _, analysis, args = captured("mini")
    writings.clear()
    variant = specialise(analysis, VariantKey((), (), exact=False))
    assert not writings
    engine = lower(variant, EagerLowering())
    assert writings == [variant.module.graph]
    engine(args, (), ())
    assert len(writings) == 1
