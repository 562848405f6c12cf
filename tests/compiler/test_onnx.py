"""Variants as ONNX: every operator means what it means in torch, every region is an If."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from turbo4d.compiler.conditional import conditional
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.lower.eager import EagerEngine, EagerPrologue
from turbo4d.compiler.lower.onnx_export import OnnxFile, WeightFile, write_onnx
from turbo4d.compiler.lower.onnx_ops import RULES
from turbo4d.compiler.lower.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeLowering
from turbo4d.compiler.specialise import Variant, specialise
from turbo4d.passes.base import emit
from turbo4d.runtime.action import BYPASS, REUSE
from turbo4d.runtime.engines.onnxruntime import OnnxSession
from turbo4d.runtime.errors import Turbo4DError
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.denoisers import captured

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
aten = torch.ops.aten
KEY = VariantKey((), (), exact=False)


def x(*sides: int) -> Tensor:
    return torch.rand(sides, generator=torch.Generator().manual_seed(sum(sides))) + 0.1


IMAGE, WEIGHT = x(2, 4, 6, 6), x(8, 4, 3, 3)
CASES: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    *((target, (x(2, 3),), {}) for target in (
        aten.sigmoid.default, aten.exp.default, aten.log.default, aten.sin.default,
        aten.cos.default, aten.tanh.default, aten.sqrt.default, aten.neg.default,
        aten.abs.default, aten.relu.default, aten.reciprocal.default, aten.clone.default,
        aten.silu.default, aten.rsqrt.default, aten.gelu.default,
    )),
    (aten.gelu.default, (x(2, 3),), {"approximate": "tanh"}),
    (aten.add.Tensor, (x(2, 3), x(3)), {}),
    (aten.add.Tensor, (x(2, 3), 0.5), {"alpha": 3}),
    (aten.sub.Tensor, (x(2, 3), x(2, 1)), {"alpha": 2}),
    (aten.mul.Tensor, (x(2, 3), 0.5), {}),
    (aten.mul.Tensor, (x(2, 3), torch.arange(3)), {}),
    (aten.div.Tensor, (x(2, 3), x(3)), {}),
    (aten.pow.Tensor_Scalar, (x(2, 3), 2.0), {}),
    (aten.pow.Tensor_Tensor, (x(2, 3), x(3)), {}),
    (aten.rsub.Scalar, (x(2, 3), 1), {}),
    (aten.rsub.Tensor, (x(2, 3), x(3)), {"alpha": 2}),
    (aten.lerp.Tensor, (x(2, 3), x(2, 3) + 1, x(1)), {}),
    (aten.lerp.Scalar, (x(2, 3), x(2, 3) + 1, 0.3), {}),
    (aten.reshape.default, (x(2, 6), [3, 4]), {}),
    (aten.unsqueeze.default, (x(2, 3), -1), {}),
    (aten.squeeze.dim, (x(2, 1, 3), 1), {}),
    (aten.permute.default, (x(2, 3, 4), [0, -1, 1]), {}),
    (aten.expand.default, (x(2, 1, 4), [5, -1, 3, -1]), {}),
    (aten.slice.Tensor, (x(2, 8), 1, 1, 9223372036854775807), {}),
    (aten.slice.Tensor, (x(2, 8), -1, 0, -2, 3), {}),
    (aten.select.int, (x(2, 3, 4), 1, -1), {}),
    (aten.cat.default, ([x(2, 3), x(2, 1)], -1), {}),
    (aten.repeat_interleave.self_int, (x(2, 3), 4, 0), {}),
    (aten._to_copy.default, (x(2, 3),), {"dtype": torch.int64}),
    (aten.linear.default, (x(2, 3), x(4, 3)), {}),
    (aten.linear.default, (x(2, 5, 3), x(4, 3), x(4)), {}),
    (aten.matmul.default, (x(2, 5, 3), x(3, 4)), {}),
    (aten.mm.default, (x(5, 3), x(3, 4)), {}),
    (aten.bmm.default, (x(2, 5, 3), x(2, 3, 4)), {}),
    (aten.addmm.default, (x(4), x(5, 3), x(3, 4)), {"beta": 0.5}),
    (aten.baddbmm.default, (x(2, 5, 4), x(2, 5, 3), x(2, 3, 4)), {"alpha": 0.5, "beta": 0}),
    (aten.softmax.int, (x(2, 3, 4), 1), {}),
    (aten.scaled_dot_product_attention.default, (x(2, 2, 5, 8), x(2, 2, 3, 8), x(2, 2, 3, 4)), {}),
    (aten.scaled_dot_product_attention.default,
     (x(2, 5, 8), x(2, 3, 8), x(2, 3, 4), x(5, 3)), {"scale": 0.2}),
    (aten.scaled_dot_product_attention.default,
     (x(2, 5, 8), x(2, 3, 8), x(2, 3, 4), torch.arange(15).reshape(5, 3) % 4 > 0), {}),
    (aten.layer_norm.default, (x(2, 3, 4), [4]), {}),
    (aten.layer_norm.default, (x(2, 3, 4), [3, 4], x(3, 4), x(3, 4), 1e-3), {}),
    (aten.group_norm.default, (IMAGE, 2, x(4), x(4) + 1, 1e-3), {}),
    (aten.group_norm.default, (x(2, 64), 2), {}),
    (aten.conv1d.default, (x(2, 4, 9), x(6, 2, 3), None, [2], [1], [1], 2), {}),
    (aten.conv2d.default, (IMAGE, WEIGHT, x(8), [2, 1], [1, 0]), {}),
    (aten.conv3d.default, (x(2, 4, 3, 5, 5), x(8, 4, 3, 1, 1), x(8), [1], [1, 0, 0]), {}),
    (aten.conv_transpose2d.input, (IMAGE, x(4, 3, 3, 3), x(3), [2], [1], [1]), {}),
    (aten.conv_transpose3d.input, (x(1, 4, 2, 3, 3), x(4, 3, 2, 2, 2), None, [2, 2, 2]), {}),
    (aten.upsample_nearest2d.vec, (IMAGE, None, [2.0, 2.0]), {}),
    (aten.upsample_bilinear2d.vec, (IMAGE, [9, 12], False, None), {}),
    (aten.upsample_bilinear2d.vec, (IMAGE, [9, 12], True, None), {}),
    (aten.mean.dim, (x(2, 3, 4), [-1], True), {}),
    (aten.mean.dim, (x(2, 3, 4), [0, 2]), {}),
    (aten.avg_pool2d.default, (IMAGE, [2, 2]), {}),
    (aten.avg_pool2d.default, (IMAGE, [3], [2], [1]), {}),
]  # fmt: skip


def test_every_rule_has_a_case() -> None:
    assert {target for target, _, _ in CASES} == set(RULES)


def variant_of(module: fx.GraphModule, inputs: int) -> Variant:
    return Variant(KEY, module, tuple(range(inputs)), (), (), (), 1, ())


def graph_of(target: Any, args: Sequence[Any], kwargs: Any) -> tuple[Variant, list[Tensor]]:
    """A graph of one call, its tensors placeholders."""
    graph = fx.Graph()
    given: list[Tensor] = []

    def place(value: Any) -> Any:
        if isinstance(value, list) and isinstance(value[0], Tensor):
            return [place(part) for part in value]
        if not isinstance(value, Tensor):
            return value
        node = graph.placeholder(f"i_{len(given)}")
        node.meta["val"] = value
        given.append(value)
        return node

    placed = [place(argument) for argument in args]
    graph.output((emit(graph, target, *placed, **kwargs),))
    return variant_of(fx.GraphModule(nn.Module(), graph), len(given)), given


def write(variant: Variant, folder: Path, held: dict[str, Tensor] | None = None) -> OnnxFile:
    return write_onnx(
        variant, held or {}, folder / "graph.onnx", WeightFile(folder / "weights.bin")
    )


@pytest.mark.parametrize(("target", "args", "kwargs"), CASES, ids=lambda value: str(value)[:40])
def test_an_operator_means_the_same(target: Any, args: Any, kwargs: Any, tmp_path: Path) -> None:
    variant, given = graph_of(target, args, kwargs)
    file = write(variant, tmp_path)
    onnx.checker.check_model(file.path, full_check=True)
    (found,) = OnnxSession(file.path, threads=1)(given)
    (wanted,) = variant.module(*given)
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=2e-6)


def test_what_takes_no_tensor_is_a_constant(tmp_path: Path) -> None:
    graph = fx.Graph()
    taken = graph.placeholder("i_0")
    taken.meta["val"] = x(4)
    counted = emit(graph, aten.arange.default, 4, dtype=torch.float32, device=torch.device("cpu"))
    graph.output((emit(graph, aten.add.Tensor, taken, counted),))
    file = write(variant_of(fx.GraphModule(nn.Module(), graph), 1), tmp_path)
    assert [node.op_type for node in onnx.load(file.path).graph.node] == ["Add"]
    torch.testing.assert_close(OnnxSession(file.path)([x(4)])[0], x(4) + torch.arange(4))


@cache
def cases() -> dict[str, Any]:
    """A conditional variant of a small network, its prologue's values and the keys it holds."""
    analysis, args = captured("mini")[2:]
    names = sorted(region.name for region in analysis.regions if region.kind != "block")
    skip = {"stack.0.chain": REUSE, "stack.1.chain": BYPASS, "stack.2.motion": REUSE}
    writes = tuple(sorted((*names, "stack.2.motion")))
    keys = (
        VariantKey((), writes, exact=True),
        VariantKey(tuple(sorted(skip.items())), (), exact=True),
        VariantKey((("core", REUSE),), (), exact=True),
    )
    held = EagerPrologue(exact_form(analysis).prologue)(args)
    return {"analysis": analysis, "args": args, "keys": keys, "held": held,
            "whole": conditional(analysis, keys)}  # fmt: skip


def test_every_region_is_an_if_and_every_weight_stands_once(tmp_path: Path) -> None:
    found = cases()
    whole, table = found["whole"], found["analysis"].capture.table
    held = {row.name: value for row, value in zip(table, found["args"], strict=True)
            if row.kind != "input"}  # fmt: skip
    file = write(whole, tmp_path, held)
    onnx.checker.check_model(file.path, full_check=True)
    model = onnx.load(file.path, load_external_data=False)
    assert count(model.graph, "If") == len(whole.flags) == 7
    names = [node.name for node in whole.module.graph.find_nodes(op="placeholder")]
    weights = {name for name in names if name in held}
    stored = [tensor.name for tensor in model.graph.initializer]
    assert {name for name in stored if not name.startswith("constant_")} == weights
    assert len(stored) == len(set(stored))
    used = sum(held[name].numel() * 4 for name in weights)
    assert file.weights_bytes == used
    assert (tmp_path / "weights.bin").stat().st_size <= used + 64 * len(weights)
    assert [*file.inputs] == [name for name in names if name not in held]
    assert [*file.outputs[:3]] == ["output_0", "new_slot_core", "new_slot_stack_0_chain"]


def count(graph: Any, kind: str) -> int:
    """Nodes of a kind, those of branches too."""
    inside = [part.g for node in graph.node for part in node.attribute if part.HasField("g")]
    own = sum(node.op_type == kind for node in graph.node)
    return own + sum(count(part, kind) for part in inside)


def test_it_gives_what_the_specialised_engines_give() -> None:
    found = cases()
    whole, args, held = found["whole"], found["args"], found["held"]
    engine = OnnxRuntimeLowering().compile(whole)
    slots: dict[str, Tensor] = {}
    for key in found["keys"]:
        alone = EagerEngine(specialise(found["analysis"], key))
        (wanted,), written = alone(args, held, [slots[name] for name in alone.reads])
        slots.update(zip(alone.writes, written, strict=True))
        actions = dict(key.actions)
        given = [
            slots[name] if actions.get(name) == REUSE else torch.zeros_like(slots[name])
            for name in whole.reads
        ]
        flags = [torch.tensor(name in actions) for name in whole.flags]
        (output,), made = engine(args, held, [*given, *flags])
        pairs = [(wanted, output)]
        again = dict(zip(whole.writes, made, strict=True))
        pairs += [(slot, again[name]) for name, slot in zip(alone.writes, written, strict=True)]
        for a, b in pairs:
            assert (a - b).norm() <= 1e-5 * a.norm()


def test_new_weights_are_written_anew() -> None:
    graph = fx.Graph()
    weight, taken = graph.placeholder("w_0"), graph.placeholder("i_0")
    weight.meta["val"] = taken.meta["val"] = x(3)
    graph.output((emit(graph, aten.mul.Tensor, weight, taken),))
    engine = OnnxRuntimeLowering().compile(variant_of(fx.GraphModule(nn.Module(), graph), 2))
    held = x(3)
    for _ in range(2):
        (found,), _ = engine((held, x(3)), (), ())
        torch.testing.assert_close(found, held * x(3))
        held += 1
    assert isinstance(engine, OnnxRuntimeEngine)
    assert engine.file is not None
    assert engine.file.path.name == "graph_2.onnx"


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    variant, _ = graph_of(aten.erf.default, [x(2)], {})
    assert OnnxRuntimeLowering().supports(variant) == ("aten.erf.default has no ONNX form here",)
    with pytest.raises(LowerError) as caught:
        write(variant, tmp_path)
    assert str(caught.value) == (
        "variant 'compute' is no ONNX graph: aten.erf.default has no ONNX form here."
    )
    q = x(2, 5, 8)
    causal, _ = graph_of(aten.scaled_dot_product_attention.default, (q, q, q, None, 0.0, True), {})
    reasons = OnnxRuntimeLowering().supports(causal)
    assert reasons == ("causal and grouped attention have no ONNX form here",)
    double, _ = graph_of(aten.sin.default, [x(2).double()], {})
    assert OnnxRuntimeLowering().supports(double) == (
        "it computes in float32, not in torch.float64",
    )


def test_a_tensor_of_another_form_is_refused(tmp_path: Path) -> None:
    variant, _ = graph_of(aten.sin.default, [x(2)], {})
    session = OnnxSession(write(variant, tmp_path).path)
    with pytest.raises(Turbo4DError) as caught:
        session([x(3)])
    assert str(caught.value) == (
        "input 'i_0' is torch.float32[3] on cpu; the graph takes torch.float32[2] on cpu."
    )
    assert math.isclose(float(session([x(2)])[0][0]), float(x(2)[0].sin()), rel_tol=1e-6)
