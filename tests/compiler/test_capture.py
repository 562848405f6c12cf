from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.errors import CaptureError
from turbo4d.compiler.ir import Capture
from turbo4d.compiler.show import diff, graph_text

from tests.compiler import captures
from tests.compiler.captures import NETWORKS, build, capture_by_compile, compiled, exported
from tests.support import flat_args

ATEN = torch.ops.aten
# What a canonical graph never contains: each has another spelling.
REPLACED = (
    ATEN.view.default, ATEN._unsafe_view.default, ATEN.flatten.using_ints, ATEN.unflatten.int,
    ATEN.transpose.int, ATEN.t.default, ATEN.chunk.default, ATEN.split.Tensor, ATEN.unbind.int,
    ATEN.to.dtype, ATEN.contiguous.default, ATEN.detach.default, ATEN.dropout.default,
    ATEN._assert_tensor_metadata.default, ATEN.lift_fresh_copy.default, ATEN.alias.default,
)  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_both_doors_give_one_graph(name: str) -> None:
    first, second = compiled(name).capture, exported(name)
    assert (
        diff(
            graph_text(first.module.graph, first.table),
            graph_text(second.module.graph, second.table),
        )
        == ""
    )
    assert first.fingerprint == second.fingerprint
    assert first.hints == second.hints
    assert (first.door, second.door) == ("compile", "export")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, torch.float32) for name in NETWORKS),
        ("chain", torch.bfloat16),
        ("joint_dit", torch.bfloat16),
        ("video_unet", torch.float64),
        ("multi_view", torch.float64),
    ],
)
def test_the_graph_computes_the_same_bits(name: str, dtype: torch.dtype) -> None:
    module, call = build(name, dtype)
    capture = exported(name, dtype)
    with torch.no_grad():
        wanted = module(**call)
        [got] = capture.module(*flat_args(capture, (), call))
    assert wanted.std() > 0.01  # a network of zeros would prove nothing
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("name", ["sv4d_small", "video_unet", "multi_view"])
def test_a_call_in_another_memory_layout_computes_the_same_bits(name: str) -> None:
    module, call = build(name)
    capture = exported(name)
    key = "sample" if "sample" in call else "x"
    other = {**call, key: call[key].to(memory_format=torch.channels_last)}
    with torch.no_grad():
        wanted = module(**other)
        [got] = capture.module(*flat_args(capture, (), other))
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_compile_door_says_where_each_row_is_among_the_arguments(name: str) -> None:
    seen = compiled(name)
    order = seen.capture.order
    assert order is not None
    found = [
        (row, seen.capture.constants[row.target] if position < 0 else seen.arguments[position])
        for row, position in zip(seen.capture.table, order, strict=True)
    ]
    assert all((tuple(value.shape), value.dtype) == (row.shape, row.dtype) for row, value in found)
    state = seen.module.state_dict()
    weights = {row.target: value for row, value in found if row.kind == "weight"}
    assert weights
    assert all(value.data_ptr() == state[key].data_ptr() for key, value in weights.items())
    inputs = {row.target: value for row, value in found if row.kind == "input"}
    assert inputs
    assert all(value is seen.call[key] for key, value in inputs.items() if key in seen.call)


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_stand_in_canonical_order_and_all_are_used(name: str) -> None:
    capture = exported(name)
    rank = {"weight": 0, "constant": 1, "input": 2}
    keys = [(rank[row.kind], row.target) for row in capture.table]
    assert keys == sorted(keys)
    nodes = list(capture.module.graph.find_nodes(op="placeholder"))
    assert [node.name for node in nodes] == [row.name for row in capture.table]
    assert all(node.users for node in nodes)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_node_is_used_spelled_and_says_its_shape(name: str) -> None:
    capture = exported(name)
    capture.module.graph.lint()
    calls = [node for node in capture.module.graph.nodes if node.op == "call_function"]
    assert all(node.users for node in calls)
    assert not [node for node in calls if node.target in REPLACED]
    _, call = build(name)
    values = _Recorder(capture.module).record(flat_args(capture, (), call))
    for node in calls:
        assert tuple(values[node.name].shape) == tuple(node.meta["val"].shape), node
        assert values[node.name].dtype == node.meta["val"].dtype, node


class _Recorder(torch.fx.Interpreter):
    def record(self, args: list[Tensor]) -> dict[str, Tensor]:
        self.seen: dict[str, Tensor] = {}
        with torch.no_grad():
            self.run(*args)
        return self.seen

    def run_node(self, n: torch.fx.Node) -> Any:
        value = super().run_node(n)
        self.seen[n.name] = value
        return value


def test_weights_have_the_names_of_the_state_dict_and_its_storage() -> None:
    capture = exported("sv4d_small")
    state = captures.exported_module("sv4d_small").state_dict()
    assert "input_blocks.1.1.norm.weight" in capture.weights
    assert all(value.data_ptr() == state[key].data_ptr() for key, value in capture.weights.items())


def test_a_capture_on_the_meta_device_is_the_same() -> None:
    layer = nn.Linear(2, 3).eval()
    there = capture_export(
        nn.Linear(2, 3, device="meta").eval(), (torch.ones(1, 2, device="meta"),)
    )
    assert there.fingerprint == capture_export(layer, (torch.ones(1, 2),)).fingerprint


class _Mutating(nn.Module):
    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        state.add_(1)
        return x * state


class _Dropping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.dropout(x, 0.5, train=True)


class _Nested(nn.Module):
    def forward(self, x: Tensor, *more: Tensor, parts: list[dict[str, Tensor]]) -> Any:
        return {"eps": x + more[0] * parts[1]["a"], "none": None}


MUTATING = (
    "the forward writes to 'state'; a step must be a pure function of its inputs. Copy the tensor "
    "before writing to it."
)


def test_a_forward_that_writes_to_its_input_is_refused_at_the_export_door() -> None:
    with pytest.raises(CaptureError) as caught:
        capture_export(_Mutating().eval(), (torch.ones(3), torch.ones(3)))
    assert str(caught.value) == MUTATING


def test_a_forward_that_writes_to_its_input_is_refused_at_the_compile_door() -> None:
    with pytest.raises(BackendCompilerFailed) as caught:
        capture_by_compile(_Mutating().eval(), {"x": torch.ones(3), "state": torch.ones(3)})
    assert MUTATING in str(caught.value)


def test_training_mode_is_refused() -> None:
    with pytest.raises(CaptureError) as caught:
        capture_export(nn.Linear(2, 2), (torch.ones(1, 2),))
    assert str(caught.value) == "Linear is in training mode; call model.eval() before compiling."
    with pytest.raises(BackendCompilerFailed, match="Linear is in training mode"):
        capture_by_compile(nn.Linear(2, 2), {"input": torch.ones(1, 2)})


def test_a_forward_that_draws_random_numbers_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"dropout of 0\.5 in training mode"):
        capture_export(_Dropping().eval(), (torch.ones(3),))


def test_a_graph_for_any_size_becomes_one_for_each() -> None:
    found: list[Capture] = []

    def backend(gm: Any, inputs: Any) -> Any:
        found.append(captures.capture_compiled(gm, inputs))
        return gm

    torch.compiler.reset()
    layer = nn.Linear(2, 2).eval()
    step = torch.compile(layer, backend=backend, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for count in (3, 5, 3):
            step(torch.ones(count, 2))
    shapes = [row.shape for capture in found for row in capture.table if row.kind == "input"]
    assert shapes == [(3, 2), (5, 2)]
    assert all(type(size) is int for shape in shapes for size in shape)


def test_autocast_is_refused() -> None:
    with (
        pytest.raises(CaptureError, match="autocast is on for 'cpu'"),
        torch.autocast("cpu", torch.bfloat16),
    ):
        capture_export(nn.Linear(2, 2).eval(), (torch.ones(1, 2),))


def test_nested_arguments_have_the_paths_of_the_forward() -> None:
    # One tensor in three places: the graph must still have three inputs.
    ones = torch.ones(3)
    capture = capture_export(_Nested().eval(), (ones, ones), {"parts": [{}, {"a": ones}]})
    assert [row.target for row in capture.table] == ["more[0]", "parts[1]['a']", "x"]
    assert capture.out_literals == {1: None}
    [got] = capture.module(*flat_args(capture, (ones, 2 * ones), {"parts": [{}, {"a": 3 * ones}]}))
    assert torch.equal(got, 7 * ones)


class _Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x


def test_what_torch_export_refuses_is_refused_with_its_reason() -> None:
    with pytest.raises(CaptureError, match=r"^torch\.export cannot capture _Branching: ") as caught:
        capture_export(_Branching().eval(), (torch.ones(3),))
    assert caught.value.__notes__[0].startswith("with strict=False: ")


class _OwnError(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("the model says no")


def test_the_model_s_own_errors_pass() -> None:
    with pytest.raises(ValueError, match=r"^the model says no$"):
        capture_export(_OwnError().eval(), (torch.ones(3),))
