"""Half types: what torch accumulates in float32 is float32 in the graph, and as near the truth.

Truth is float64 on the same rounded operands. One rounding of a result is off by at most the unit
roundoff u; what a rule rounds beforehand (a sigmoid before its product, a weight of the softmax
before its) adds as many, and never more than torch's own kernel by more than two of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from turbo4d.compiler.lower.onnx_export import dtypes_of
from turbo4d.compiler.lower.onnx_rules import RULES
from turbo4d.compiler.lower.onnxruntime import OnnxRuntimeLowering
from turbo4d.runtime.engines.onnxruntime import OnnxSession

from tests.compiler.lower.onnx_cases import CASES
from tests.compiler.lower.onnx_graphs import graph_of, write, x

onnx = pytest.importorskip("onnx", reason="turbo4d[cpu] is not installed")
pytest.importorskip("onnxruntime", reason="turbo4d[cpu] is not installed")
aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default
HALF, BRAIN = torch.float16, torch.bfloat16


def spread(*sides: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    made = torch.randn(sides, generator=torch.Generator().manual_seed(sum(sides)))
    return made * scale + shift


# Values whose squares, sums or scores no half type holds: each rule is wrong without its casts.
HARD: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (aten.layer_norm.default, (spread(4, 512, scale=400.0, shift=2000.0), [512]), {}),
    (aten.layer_norm.default, (spread(4, 512, scale=0.02, shift=4.0), [512], x(512), x(512)), {}),
    (aten.rms_norm.default, (spread(4, 512, scale=900.0), [512], x(512), 1e-6), {}),
    (aten.group_norm.default,
     (spread(2, 64, 8, 8, scale=300.0, shift=900.0), 32, x(64), x(64)), {}),
    (aten.instance_norm.default,
     (spread(2, 8, 16, 16, scale=300.0), x(8), x(8), None, None, True, 0.1, 1e-5, False), {}),
    (aten.softmax.int, (spread(4, 2048, scale=3.0), -1), {}),
    (SDPA, (spread(2, 16, 64, scale=4.0), spread(2, 64, 64, scale=4.0), spread(2, 64, 32)), {}),
    (SDPA, (spread(1, 8, 40, scale=60.0), spread(1, 9, 40, scale=60.0), spread(1, 9, 8)), {}),
    (aten.mean.dim, (spread(2, 4096, scale=100.0, shift=100.0), [-1]), {}),
    (aten.sum.dim_IntList, (x(2, 4096), [-1]), {}),
    (aten.cumsum.default, (x(2, 2048), -1), {}),
    (aten.linear.default, (spread(4, 1024), spread(16, 1024), spread(16)), {}),
    (aten.mul.Tensor, (spread(64, 64), 0.1), {}),
    (aten.lerp.Tensor, (spread(64, 64, shift=50.0), spread(64, 64, shift=50.0), x(1)), {}),
    (aten.softplus.default, (spread(64, 64, scale=20.0),), {}),
    (aten.silu.default, (spread(64, 64, scale=4.0),), {}),
    (aten.gelu.default, (spread(64, 64, scale=2.0),), {}),
]  # fmt: skip


def in_dtype(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtype)
    return [in_dtype(part, dtype) for part in value] if isinstance(value, list) else value


def case_in(case: Any, dtype: torch.dtype) -> Any:
    target, args, kwargs = case
    given = tuple(in_dtype(value, dtype) for value in args)
    return target, given, {key: in_dtype(value, dtype) for key, value in kwargs.items()}


def relative(got: Tensor, truth: Tensor) -> float:
    return float((got.double() - truth).norm() / truth.norm())


@pytest.mark.parametrize("case", HARD, ids=lambda case: str(case[0]))
def test_float16_is_as_near_the_truth_as_torch(case: Any, tmp_path: Path) -> None:
    target, args, kwargs = case_in(case, HALF)
    truth = target(*[in_dtype(value, torch.float64) for value in args], **kwargs)
    variant, given = graph_of(target, args, kwargs)
    (got,) = OnnxSession(write(variant, tmp_path).path, threads=1)(given)
    (torchs,) = variant.module(*given)
    assert got.dtype == HALF
    unit = torch.finfo(HALF).eps / 2
    assert relative(got, truth) <= relative(torchs, truth) + 2 * unit


@pytest.mark.parametrize("case", HARD, ids=lambda case: str(case[0]))
def test_bfloat16_is_as_near_the_truth_as_torch(case: Any, tmp_path: Path) -> None:
    """ONNX Runtime has no arithmetic in bfloat16: ONNX's own reference runs the graph."""
    pytest.importorskip("ml_dtypes", reason="the reference evaluator needs it")
    target, args, kwargs = case_in(case, BRAIN)
    truth = target(*[in_dtype(value, torch.float64) for value in args], **kwargs)
    variant, given = graph_of(target, args, kwargs)
    path = write(variant, tmp_path).path
    onnx.checker.check_model(path, full_check=True)
    (got,) = by_reference(path, given)
    (torchs,) = variant.module(*given)
    unit = torch.finfo(BRAIN).eps / 2
    assert relative(got, truth) <= relative(torchs, truth) + 2 * unit


def by_reference(path: Path, given: list[Tensor]) -> list[Tensor]:
    import ml_dtypes
    import numpy
    from onnx.reference import ReferenceEvaluator

    feeds: dict[str, Any] = {}
    for at, value in enumerate(given):
        brain = value.dtype == BRAIN
        array = value.float().numpy() if brain else value.numpy()
        feeds[f"i_{at}"] = array.astype(ml_dtypes.bfloat16) if brain else array
    with numpy.errstate(all="ignore"):
        results: Any = ReferenceEvaluator(str(path)).run(None, feeds)
    return [torch.from_numpy(result.astype(numpy.float32)) for result in results]


@pytest.mark.parametrize("dtype", [HALF, BRAIN])
def test_what_accumulates_is_float32_in_the_graph(dtype: torch.dtype, tmp_path: Path) -> None:
    """Strongly typed: an engine that keeps the graph's types has no other way."""
    wide = {"LayerNormalization", "InstanceNormalization", "BatchNormalization", "Softmax",
            "ReduceMean", "ReduceSum", "CumSum", "AveragePool"}  # fmt: skip
    seen: set[str] = set()
    for case in CASES:
        target, args, kwargs = case_in(case, dtype)
        if target is aten.avg_pool3d.default:
            continue  # torch has none in half types
        variant, _ = graph_of(target, args, kwargs)
        path = write(variant, tmp_path).path
        model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
        kinds = {value.name: value.type.tensor_type.elem_type for value in
                 (*model.graph.value_info, *model.graph.output)}  # fmt: skip
        for node in model.graph.node:
            if node.op_type in wide:
                seen.add(node.op_type)
                assert kinds[node.output[0]] in (1, 6, 7), (target, node.op_type)
    assert seen == wide


@pytest.mark.parametrize("dtype", [HALF, BRAIN])
def test_every_operator_is_valid_in_half_types(dtype: torch.dtype, tmp_path: Path) -> None:
    checked: set[Any] = set()
    for case in CASES:
        target, args, kwargs = case_in(case, dtype)
        if target is aten.avg_pool3d.default:
            continue  # torch has none in half types
        variant, _ = graph_of(target, args, kwargs)
        path = write(variant, tmp_path).path
        onnx.checker.check_model(path, full_check=True)
        [opset] = onnx.load(path).opset_import
        assert opset.version == (22 if BRAIN in dtypes_of(variant.module) else 20)
        checked.add(target)
    assert len(checked) >= len(RULES) - 2


def test_bfloat16_is_refused_by_the_lowering_that_cannot_run_it() -> None:
    variant, _ = graph_of(aten.sin.default, [x(2).bfloat16()], {})
    assert OnnxRuntimeLowering().supports(variant) == (
        "it computes in float32 and float16, not in torch.bfloat16",
    )
    half, _ = graph_of(aten.sin.default, [x(2).half()], {})
    assert OnnxRuntimeLowering().supports(half) == ()
