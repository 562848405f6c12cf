"""Operators mean in ONNX what they mean in torch; what cannot be written is refused by name."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx, nn
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.lower.onnx_rules import REASONS, RULES
from turbo4d.compiler.lower.onnxruntime import OnnxRuntimeLowering
from turbo4d.passes.base import emit
from turbo4d.runtime.engines.onnxruntime import OnnxSession

from tests.compiler.lower.onnx_cases import CASES
from tests.compiler.lower.onnx_graphs import graph_of, variant_of, write, x

onnx = pytest.importorskip("onnx", reason="turbo4d[cpu] is not installed")
pytest.importorskip("onnxruntime", reason="turbo4d[cpu] is not installed")
aten = torch.ops.aten


# What torch leaves undefined has no value to compare.
UNSET = {aten.empty_like.default}


def test_every_rule_has_a_case() -> None:
    assert {target for target, _, _ in CASES} == set(RULES) - UNSET


def test_what_torch_leaves_undefined_is_zero(tmp_path: Path) -> None:
    variant, given = graph_of(aten.empty_like.default, (x(2, 3),), {})
    assert not OnnxSession(write(variant, tmp_path).path)(given)[0].any()


@pytest.mark.parametrize(("target", "args", "kwargs"), CASES, ids=lambda value: str(value)[:40])
def test_an_operator_means_the_same(target: Any, args: Any, kwargs: Any, tmp_path: Path) -> None:
    variant, given = graph_of(target, args, kwargs)
    file = write(variant, tmp_path)
    onnx.checker.check_model(file.path, full_check=True)
    found = OnnxSession(file.path, threads=1)(given)
    for got, wanted in zip(found, variant.module(*given), strict=True):
        assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
        torch.testing.assert_close(got, wanted, atol=2e-6, rtol=2e-6)


def test_what_takes_no_tensor_is_a_constant(tmp_path: Path) -> None:
    graph = fx.Graph()
    taken = graph.placeholder("i_0")
    taken.meta["val"] = x(4)
    counted = emit(graph, aten.arange.default, 4, dtype=torch.float32, device=torch.device("cpu"))
    graph.output((emit(graph, aten.add.Tensor, taken, counted),))
    file = write(variant_of(fx.GraphModule(nn.Module(), graph), 1), tmp_path)
    assert [node.op_type for node in onnx.load(file.path).graph.node] == ["Add"]
    torch.testing.assert_close(OnnxSession(file.path)([x(4)])[0], x(4) + torch.arange(4))


def test_a_large_fill_is_one_number(tmp_path: Path) -> None:
    graph = fx.Graph()
    taken = graph.placeholder("i_0")
    taken.meta["val"] = x(1)
    cpu = torch.device("cpu")
    filled = emit(graph, aten.full.default, [1000], 2.5, dtype=torch.float32, device=cpu)
    graph.output((emit(graph, aten.add.Tensor, taken, filled),))
    file = write(variant_of(fx.GraphModule(nn.Module(), graph), 1), tmp_path)
    assert file.path.stat().st_size < 1000
    torch.testing.assert_close(OnnxSession(file.path)([x(1)])[0], x(1) + torch.full((1000,), 2.5))


def test_no_more_is_sorted_than_is_read(tmp_path: Path) -> None:
    graph = fx.Graph()
    taken = graph.placeholder("i_0")
    taken.meta["val"] = x(2, 50)
    order = emit(graph, aten.sort.stable, taken, stable=True, dim=-1, descending=True)
    places = emit(graph, operator.getitem, order, 1)
    graph.output((emit(graph, aten.slice.Tensor, places, 1, 0, 7),))
    module = fx.GraphModule(nn.Module(), graph)
    file = write(variant_of(module, 1), tmp_path)
    stored = {one.name: one for one in onnx.load(file.path).graph.initializer}
    [top] = [node for node in onnx.load(file.path).graph.node if node.op_type == "TopK"]
    assert onnx.numpy_helper.to_array(stored[top.input[1]]).tolist() == [7]
    assert torch.equal(OnnxSession(file.path)([x(2, 50)])[0], module(x(2, 50))[0])


NONE = "has no ONNX form here"
REFUSED: list[tuple[Any, tuple[Any, ...], dict[str, Any], str]] = [
    (aten.digamma.default, (x(2),), {}, f"aten.digamma.default {NONE}"),
    (
        aten.scaled_dot_product_attention.default,
        (x(2, 4, 5, 8), x(2, 2, 3, 8), x(2, 2, 3, 8)),
        {"enable_gqa": True},
        f"attention whose heads share keys (enable_gqa) {NONE}",
    ),
    (
        aten.index.Tensor, (x(3), [x(3) > 0.5]), {},
        "indexing by a condition has a result of no fixed shape",
    ),
    (
        aten.index.Tensor, (x(3, 3), [torch.tensor([1]), torch.tensor([0])]), {},
        f"indexing by several tensors {NONE}",
    ),
    (aten.einsum.default, ("...d->...", [x(3, 3)]), {}, f"an einsum with an ellipsis {NONE}"),
    (
        aten.bitwise_and.Tensor, (torch.tensor([3]), torch.tensor([1])), {},
        "bits of torch.int64 have no ONNX form here, only truths",
    ),
    (aten.elu.default, (x(3), 1.0, 2.0), {}, f"a scaled elu {NONE}"),
    (aten.round.default, (torch.tensor([3]),), {}, f"rounding of integers {NONE}"),
    (aten.nan_to_num.default, (torch.tensor([3]),), {}, f"nan_to_num of integers {NONE}"),
    (aten.linalg_vector_norm.default, (x(3), 3), {}, f"a norm of order 3 {NONE}"),
    (
        aten.batch_norm.default, (x(2, 3), None, None, x(3), x(3), True, 0.1, 1e-5, False), {},
        f"aten.batch_norm.default in training mode {NONE}",
    ),
    (
        aten.instance_norm.default,
        (x(2, 3, 4), None, None, x(3), x(3), False, 0.1, 1e-5, False), {},
        f"an instance norm by running statistics {NONE}",
    ),
    (
        aten.avg_pool2d.default, (x(1, 2, 4, 4), [2], [2], [0], False, True, 3), {},
        f"average pooling with a divisor of its own {NONE}",
    ),
    (aten.sort.default, (x(3) > 0.5,), {}, f"aten.sort.default of truths {NONE}"),
]  # fmt: skip


def test_every_family_of_reasons_has_a_case() -> None:
    whys = {REASONS[target] for target, *_ in REFUSED if target in REASONS}
    assert whys == set(REASONS.values())


@pytest.mark.parametrize(("target", "args", "kwargs", "fact"), REFUSED, ids=lambda v: str(v)[:30])
def test_what_cannot_be_written_is_refused(
    target: Any, args: Any, kwargs: Any, fact: str, tmp_path: Path
) -> None:
    variant, _ = graph_of(target, args, kwargs)
    [reason] = OnnxRuntimeLowering().supports(variant)
    assert reason.startswith(f"{fact} (%")
    with pytest.raises(LowerError) as caught:
        write(variant, tmp_path)
    assert str(caught.value) == f"variant 'compute' is no ONNX graph: {reason}."
    assert not (tmp_path / "graph.onnx").exists()


def test_a_refusal_names_the_place_and_the_remedy() -> None:
    variant, _ = graph_of(aten.digamma.default, [x(2)], {})
    [call] = [node for node in variant.module.graph.nodes if node.op == "call_function"]
    call.meta["module"] = "down.0.norm"
    assert OnnxRuntimeLowering().supports(variant) == (
        "aten.digamma.default has no ONNX form here (%digamma_default in module 'down.0.norm'; no "
        "pass removes it; write it otherwise in the model, or choose lowering 'eager')",
    )
    order, _ = graph_of(aten.sort.default, [x(3) > 0.5], {})
    [reason] = OnnxRuntimeLowering().supports(order)
    assert "prune-tokens writes such calls; a plan without prune has none" in reason
