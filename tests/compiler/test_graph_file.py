"""A graph as JSON and back: nothing lost, and nothing of the file run."""

from __future__ import annotations

import copy
import json
import operator
from typing import Any

import pytest
import torch
from torch import fx
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.errors import GraphFileError
from turbo4d.compiler.graph_file import graph_json, json_text
from turbo4d.compiler.graph_reading import graph_of
from turbo4d.compiler.show import graph_text
from turbo4d.compiler.verify import verify

from tests.compiler.captures import exported
from tests.passes.stream import make_stream
from tests.support import fork

aten = torch.ops.aten


@pytest.fixture(scope="module")
def stream() -> fx.GraphModule:
    return capture_export(*make_stream()).module


@pytest.mark.parametrize("name", ["chain", "chain_of_groups", "joint_dit"])
def test_a_graph_comes_back_as_it_was(name: str) -> None:
    capture = exported(name)
    text = json_text(graph_json(capture.module))
    back = graph_of(json.loads(text))
    assert graph_text(back.graph) == graph_text(capture.module.graph)
    assert json_text(graph_json(back)) == text
    verify(back, inputs=[row.name for row in capture.table], full=True)


def test_each_kind_of_argument_comes_back() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.empty(2, 4, device="meta")
    arguments: list[Any] = [
        None, True, 3, 2.0, float("inf"), float("-inf"), float("nan"), "it's", [1, [x]], (x, (1,)),
        torch.bfloat16, torch.strided, torch.channels_last, torch.device("meta"),
    ]  # fmt: skip
    made = graph.call_function(
        aten.split.Tensor, (x, 1), {f"k{i}": a for i, a in enumerate(arguments)}
    )
    made.meta["val"] = [x.meta["val"], x.meta["val"]]
    part = graph.call_function(operator.getitem, (made, 1))
    part.meta["val"] = x.meta["val"].t()
    graph.output((part,))
    back = graph_of(json.loads(json_text(graph_json(fx.GraphModule({}, graph)))))
    [split] = back.graph.find_nodes(op="call_function", target=aten.split.Tensor)
    [got] = back.graph.find_nodes(op="call_function", target=operator.getitem)
    assert repr(split.kwargs) == repr(made.kwargs)
    assert [type(value) for value in split.kwargs.values()] == [
        type(value) for value in made.kwargs.values()
    ]
    assert (got.meta["val"].shape, got.meta["val"].stride()) == ((4, 2), (1, 4))
    assert [value.device.type for value in split.meta["val"]] == ["meta", "meta"]


def test_a_name_that_a_rewrite_gave_stays(stream: fx.GraphModule) -> None:
    gm = fork(stream)
    next(node for node in gm.graph.nodes if node.name == "add").name = "sum"
    assert "%sum: " in graph_text(graph_of(graph_json(gm)).graph)  # FX itself would say sum_1


def test_branches_come_back() -> None:
    from tests.compiler.test_verify import branching

    gm = branching(lambda x: x.cos())
    back = graph_of(json.loads(json_text(graph_json(gm))))
    assert graph_text(back.graph) == graph_text(gm.graph)
    for name in ("true_graph_0", "false_graph_0"):
        inner: Any = (back.get_submodule(name), gm.get_submodule(name))
        assert graph_text(inner[0].graph) == graph_text(inner[1].graph)
    verify(back, inputs=["take", "x"])


def test_a_graph_that_the_file_cannot_hold_is_refused(stream: fx.GraphModule) -> None:
    gm = fork(stream)
    add = next(node for node in gm.graph.nodes if node.name == "add")
    add.target = print
    with pytest.raises(GraphFileError) as caught:
        graph_json(gm)
    assert str(caught.value) == (
        "%add calls <built-in function print>; a graph file holds operators of aten and prims, "
        "cond and getitem."
    )
    add.target, add.kwargs = aten.add.Tensor, {"alpha": 1j}
    with pytest.raises(GraphFileError, match=r"^%add has an argument of type complex\.$"):
        graph_json(gm)


def calls(target: str) -> str:
    return (
        f"%linear calls '{target}'; a graph file holds operators of aten and prims, cond and "
        "getitem."
    )


VALUE = {"dtype": "float32", "shape": [2], "strides": [1], "device": "cpu"}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a builtin": ({"target": "os.system"}, calls("os.system")),
    "an attribute of an operator": (
        {"target": "aten.linear.__call__"},
        calls("aten.linear.__call__"),
    ),
    "another namespace": ({"target": "inductor.seed.default"}, calls("inductor.seed.default")),
    "no overload": ({"target": "aten.linear"}, calls("aten.linear")),
    "a name that is code": (
        {"name": "x=print(1)"},
        "'x=print(1)' is no name of a node.",
    ),
    "a keyword": ({"name": "lambda"}, "'lambda' is no name of a node."),
    "an argument's name that is code": (
        {"kwargs": {"x, **{}": 1}},
        "'x, **{}' is no name of a node.",
    ),
    "a name that is taken": ({"name": "i_x"}, "%i_x is there twice."),
    "an unknown operand": (
        {"args": [{"node": "later"}]},
        "%linear reads %later, which no line above it defines.",
    ),
    "an odd argument": (
        {"args": [{"eval": "1"}]},
        "%linear has an argument that is none: {'eval': '1'}.",
    ),
    "no dtype": (
        {"args": [{"dtype": "strided"}]},
        "%linear: torch has no dtype 'strided'.",
    ),
    "no device": ({"args": [{"device": "moon"}]}, "%linear: torch has no device 'moon'."),
    "another op": (
        {"op": "call_module"},
        "%linear is a 'call_module'; wanted a flat graph of functions.",
    ),
    "an attribute": (
        {"op": "get_attr", "target": "__class__"},
        "%linear reads '__class__', which is none of the file's graphs.",
    ),
    "no arguments": ({"args": None}, "%linear has no 'args' of type list."),
    "a value that is none": ({"val": 3}, "%linear has a value that is none: 3."),
    "a shape that is no list": ({"val": {**VALUE, "shape": 2}}, "%linear has 2; wanted a list."),
    "no such dtype": ({"val": {**VALUE, "dtype": "cat"}}, "%linear: torch has no dtype 'cat'."),
    "a shape that is none": (
        {"val": {**VALUE, "shape": [-1]}},
        "%linear has no such value: {'dtype': 'float32', 'shape': [-1], 'strides': [1], "
        "'device': 'cpu'}.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_line_is_refused_in_one_sentence(stream: fx.GraphModule, case: str) -> None:
    change, sentence = BAD[case]
    found = copy.deepcopy(graph_json(stream))
    row = next(row for row in found["nodes"] if row["name"] == "linear")
    row.update(change)
    with pytest.raises(GraphFileError) as caught:
        graph_of(found)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("found", [None, [], {}, {"nodes": []}, {"graphs": {}}])
def test_what_is_no_graph_is_refused(found: Any) -> None:
    with pytest.raises(GraphFileError, match=r"^the graph has no '(graphs|nodes)' of type"):
        graph_of(found)
