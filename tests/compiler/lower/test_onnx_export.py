"""Variants as ONNX files: a region is an If, a weight stands once, names are the graph's own."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from turbo4d.compiler.analysis import analyse
from turbo4d.compiler.bundle.tolerances import relative_error
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.conditional import conditional
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.lower.eager import EagerEngine, EagerPrologue
from turbo4d.compiler.lower.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeLowering
from turbo4d.compiler.specialise import specialise
from turbo4d.passes.base import emit
from turbo4d.runtime.action import BYPASS, REUSE, Action
from turbo4d.runtime.engines.onnxruntime import OnnxSession
from turbo4d.runtime.errors import Turbo4DError
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.captures import build
from tests.compiler.denoisers import captured
from tests.compiler.lower.onnx_graphs import graph_of, variant_of, write, x
from tests.support import flat_args

onnx = pytest.importorskip("onnx", reason="turbo4d[cpu] is not installed")
pytest.importorskip("onnxruntime", reason="turbo4d[cpu] is not installed")
aten = torch.ops.aten


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


ROWS: list[dict[str, Action]] = [
    {},
    {f"stack.0.{kind}": Action("prune", keep=0.5) for kind in ("spatial", "camera", "motion")},
    {"stack.0.chain": REUSE},
    {"stack.0.chain": BYPASS},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_kind_of_variant_means_the_same(dtype: torch.dtype) -> None:
    module, call = build("chain", dtype)
    analysis = analyse(capture_export(module, (), call))
    args = flat_args(analysis.capture, (), call)
    held = EagerPrologue(exact_form(analysis).prologue)(args)
    slots: dict[str, Tensor] = {}
    plan = Plan("rows", analysis.capture.fingerprint, analysis.geometry, (8.0, 4.0, 2.0, 1.0),
                "sigma", {"main": tuple(ROWS)}, max_age=4, max_variants=9)  # fmt: skip
    for key in plan.check([region.info for region in analysis.regions]).keys["main"]:
        assert key is not None
        variant = specialise(analysis, key)
        alone = EagerEngine(variant)
        given = [slots[name] for name in alone.reads]
        outputs, written = alone(args, held, given)
        engine = OnnxRuntimeLowering().compile(variant)
        found, again = engine(args, held, given)
        assert isinstance(engine, OnnxRuntimeEngine)
        assert engine.file is not None
        onnx.checker.check_model(engine.file.path, full_check=True)
        for got, wanted in zip((*found, *again), (*outputs, *written), strict=True):
            assert got.dtype == wanted.dtype
            assert (got - wanted).float().norm() <= relative_error(dtype) * wanted.float().norm()
        slots.update(zip(alone.writes, written, strict=True))


def test_a_node_is_called_by_its_module(tmp_path: Path) -> None:
    variant, _ = graph_of(aten.silu.default, (x(2),), {})
    [call] = [node for node in variant.module.graph.nodes if node.op == "call_function"]
    call.meta["module"] = "down.0"
    model = onnx.load(write(variant, tmp_path).path)
    names = ["down.0/silu_default.Sigmoid.1", "down.0/silu_default.Mul.2"]
    assert [node.name for node in model.graph.node] == names


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


def test_a_tensor_of_another_form_is_refused(tmp_path: Path) -> None:
    variant, _ = graph_of(aten.sin.default, [x(2)], {})
    session = OnnxSession(write(variant, tmp_path).path)
    with pytest.raises(Turbo4DError) as caught:
        session([x(3)])
    assert str(caught.value) == (
        "input 'i_0' is torch.float32[3] on cpu; the graph takes torch.float32[2] on cpu."
    )
    assert math.isclose(float(session([x(2)])[0][0]), float(x(2)[0].sin()), rel_tol=1e-6)
