"""A failing engine is traced to its layer, and a small slot is held against what it came from."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from turbo4d.compiler.bundle.engine_checks import looser
from turbo4d.compiler.bundle.findings import WHOLE_RUN
from turbo4d.compiler.bundle.reference import STEM, Recorded, reference_bytes
from turbo4d.compiler.bundle.verification import verify
from turbo4d.runtime.bundle.manifest import Manifest, TensorRow
from turbo4d.runtime.bundle.manifest_file import read_manifest

import turbo4d
from tests.compiler.bundle.built import built, damaged
from tests.compiler.bundle.networks import SIGMAS, network

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def test_a_wrong_weight_is_traced_to_the_layer_that_reads_it(bundle: Path, tmp_path: Path) -> None:
    def change(place: Path, manifest: Manifest) -> str:
        row = max(manifest.weights, key=lambda each: each.size_bytes)
        path = place / manifest.weights_file
        data = bytearray(path.read_bytes())
        held = torch.frombuffer(data, dtype=torch.float32)
        first = row.offset // 4
        held[first : first + row.size_bytes // 4] *= 1.5
        path.write_bytes(data)
        self_name.append(row.name)
        return manifest.weights_file

    self_name: list[str] = []
    found = verify(damaged(bundle, tmp_path / "wrong", change))
    failed = found.failures(require_run=False)
    assert failed
    assert failed[-1].name == WHOLE_RUN
    layers = {row.layer for row in failed if row.name != WHOLE_RUN}
    assert all(" from the recorded values" in layer for layer in layers), layers
    # The first value that is wrong is given by the operator that reads the weight.
    graph = onnx.load(
        str(
            tmp_path
            / "wrong"
            / next(e.graph for e in found.manifest.engines if e.name == failed[0].name)
        ),
        load_external_data=False,
    ).graph
    offset = next(row.offset for row in found.manifest.weights if row.name == self_name[0])
    initialiser = next(
        tensor.name
        for tensor in graph.initializer
        if any(e.key == "offset" and int(e.value) == offset for e in tensor.external_data)
    )
    behind = {initialiser}
    named: set[str] = set()
    for node in graph.node:
        if behind & {*node.input}:
            named |= {*node.output}
            if node.op_type in (
                "Transpose",
                "Cast",
                "Reshape",
                "Identity",
                "MatMul",
                "Gemm",
                "Conv",
            ):
                behind |= {*node.output}
    assert any(f"{name!r}" in failed[0].layer for name in named), failed[0].layer


def test_a_wrong_constant_fails_the_engine_that_has_it(bundle: Path, tmp_path: Path) -> None:
    engine = next(row for row in read_manifest(bundle).engines if row.name == "compute")

    def change(place: Path, manifest: Manifest) -> str:
        model = onnx.load(str(place / engine.graph), load_external_data=False)
        node = [n for n in model.graph.node if n.op_type == "LayerNormalization"][-1]
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f = 10.0
        (place / engine.graph).write_bytes(model.SerializeToString())
        return engine.graph

    found = verify(damaged(bundle, tmp_path / "wrong", change))
    assert [row.name for row in found.failures(require_run=False)] == ["compute", WHOLE_RUN]
    row = found.failures(require_run=False)[0]
    assert row.worst is not None
    assert row.worst[1] > row.tolerance
    assert "LayerNormalization" in row.layer


def test_a_small_slot_is_as_exact_as_what_it_was_taken_from(tmp_path: Path) -> None:
    """Blocks that add next to nothing: their slots are differences of large values."""
    module, call = copy.deepcopy(network()[0]).half(), network()[1]
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if name.endswith(
                (".to_out.0.weight", ".to_out.0.bias", ".net.2.weight", ".net.2.bias")
            ):
                weight.mul_(1e-3)
    given = {name: value.half() for name, value in call.items()}
    turbo4d.build(
        module, kwargs=given, plan="balanced", levels=SIGMAS, use=("block",), target="onnxruntime",
        out=tmp_path / "bundle",
    )  # fmt: skip
    found = verify(tmp_path / "bundle")
    assert {row.status for row in found.rows} == {"passed"}
    assert found.reference is not None
    calls = [call for call in found.reference.calls.values() if call.slots_out]
    assert calls
    small = 0.0
    for call in calls:
        assert {*call.sizes} == {*range(len(call.slots_out))}  # every slot of a block is one
        for at, size in call.sizes.items():
            small = max(small, size / float(call.slots_out[at][1].float().norm()))
    assert small > 30
    # Without the sizes the same engine fails, and not because it is wrong.
    bare = {name: dataclasses.replace(call, sizes={})
            for name, call in found.reference.calls.items()}  # fmt: skip
    path = next((tmp_path / "bundle").glob(f"{STEM}.*"))
    stripped = reference_bytes(dataclasses.replace(found.reference, calls=bare))

    def change(place: Path, manifest: Manifest) -> str:
        (place / path.name).write_bytes(stripped)
        return path.name

    strict = verify(damaged(tmp_path / "bundle", tmp_path / "bare", change))
    failed = strict.failures(require_run=True)
    assert failed
    assert all(row.worst is not None and row.worst[0].startswith("slot ") for row in failed)


@pytest.mark.parametrize("kind", ["LayerNormalization", "Conv"])
def test_a_wrong_layer_inside_a_branch_is_named(kind: str, tmp_path: Path) -> None:
    def change(place: Path, manifest: Manifest) -> str:
        row = next(row for row in manifest.engines if row.name == "conditional")
        model = onnx.load(str(place / row.graph), load_external_data=False)
        node = next(node for node in _nodes(model.graph) if node.op_type == kind)
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f = 10.0
            if attribute.name in ("dilations", "pads"):
                attribute.ints[:] = [2] * len(attribute.ints)
        (place / row.graph).write_bytes(model.SerializeToString())
        return row.graph

    place = damaged(built(tmp_path / "bundle", "conditional"), tmp_path / "wrong", change)
    rows = {row.name: row for row in verify(place).rows}
    assert rows["compute"].status == rows["compute+core.w"].status == "failed"
    assert kind in rows["compute"].layer, rows["compute"].layer
    assert " from the recorded values" in rows["compute"].layer
    assert rows["compute"].layer == rows["compute+core.w"].layer


def _nodes(graph: Any) -> Any:
    """Of a graph and of its branches."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g)


def test_a_looser_bound_is_of_the_slot_that_the_variant_writes() -> None:
    kinds = [("output", "0"), ("slot", "a"), ("slot", "b"), ("slot", "b"), ("slot", "c")]
    gives = [
        TensorRow(f"given_{at}", kind, source, (2,), "float32")  # type: ignore[arg-type]
        for at, (kind, source) in enumerate(kinds)
    ]
    slots = tuple((name, torch.tensor([3.0, 4.0]) * scale)
                  for name, scale in (("b", 1), ("b", 2), ("c", 0)))  # fmt: skip
    call = Recorded("v", 0, {}, (), (), (), slots, {}, {0: 50.0, 1: 5.0, 2: 1.0})
    assert looser(gives, call) == {"given_2": 10.0, "given_3": 1.0, "given_4": math.inf}
    one = dataclasses.replace(call, sizes={1: 20.0})
    assert looser(gives, one) == {"given_3": 2.0}
