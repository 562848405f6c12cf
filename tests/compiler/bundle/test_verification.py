"""Engines held against what plain torch gave: what is recorded, and what verification finds."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from turbo4d.compiler.bundle.assembly import Assembly, Kept
from turbo4d.compiler.bundle.folder_lock import FolderLock
from turbo4d.compiler.bundle.memory import memory_need
from turbo4d.compiler.bundle.recording import record
from turbo4d.compiler.bundle.reference import (
    INSIDE,
    STEM,
    Recorded,
    read_reference,
    reference_bytes,
)
from turbo4d.compiler.bundle.targets import target_of
from turbo4d.compiler.bundle.tolerances import relative_error
from turbo4d.compiler.bundle.verification import (
    AS_BUILT,
    STAND_IN,
    WHOLE_RUN,
    _looser,
    run_tolerance,
    verify,
)
from turbo4d.compiler.bundle.writer import BundleWriter
from turbo4d.compiler.errors import LowerError
from turbo4d.runtime.action import Action
from turbo4d.runtime.bundle.bundle_files import sha256_of
from turbo4d.runtime.bundle.manifest import MANIFEST, FileRow, Manifest, TensorRow
from turbo4d.runtime.bundle.manifest_file import read_manifest, to_json
from turbo4d.runtime.errors import BundleError, Turbo4DError

import turbo4d
from tests.compiler.bundle.networks import SIGMAS, network, parts

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def recorded(run: Any = None) -> Any:
    module, call = network()
    found = parts()
    return record(module, found.analysis, found.plan, found.made, found.prologue, (), call, run)


def built(folder: Path, form: str = "variants") -> Path:
    module, call = network()
    found = parts(form)
    folder.mkdir()
    with FolderLock(folder), BundleWriter(folder) as writer:
        kept = Kept("chain", references=True)
        target = target_of("onnxruntime")
        Assembly(module, (), call, found, target, kept, lambda text: None).build(
            writer, memory_need(found), folder
        )
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TURBO4D_ENGINE_STORE", str(tmp_path_factory.mktemp("store")))
        return built(tmp_path_factory.mktemp("verified") / "bundle")


def damaged(bundle: Path, place: Path, change: Callable[[Path, Manifest], str]) -> Path:
    """A copy in which one file was changed, and the manifest says that it is right so."""
    shutil.copytree(bundle, place)
    manifest = read_manifest(place)
    name = change(place, manifest)
    path = place / name
    row = FileRow(path.stat().st_size, sha256_of(path))
    told = dataclasses.replace(manifest, files={**manifest.files, name: row})
    (place / MANIFEST).write_text(to_json(told))
    return place


def test_a_reference_is_what_its_file_says(tmp_path: Path) -> None:
    reference = recorded()
    path = tmp_path / "reference.safetensors"
    path.write_bytes(reference_bytes(reference))
    read = read_reference(path)
    assert {*read.calls} == {"prologue", *(row.key.name for row in parts().variants)}
    assert [(step.stream, step.step) for step in read.steps] == [
        ("main", at) for at in range(len(SIGMAS))
    ]
    for name, call in reference.calls.items():
        again = read.calls[name]
        assert [n for n, _ in again.slots_in] == [n for n, _ in call.slots_in]
        torch.testing.assert_close(again.outputs, call.outputs, rtol=0, atol=0)
        assert {*again.inside} == {*call.inside}
        assert all(value.shape == (INSIDE,) for value in again.inside.values())


def test_each_content_is_stored_once(tmp_path: Path) -> None:
    reference = recorded()
    path = tmp_path / "reference.safetensors"
    path.write_bytes(reference_bytes(reference))
    # Every step of this run has the same inputs.
    held = path.stat().st_size
    one = sum(v.numel() * v.element_size() for v in reference.steps[0].inputs.values())
    assert held < len(SIGMAS) * one + sum(
        v.numel() * v.element_size()
        for call in reference.calls.values()
        for v in (*call.outputs, *(s for _, s in call.slots_out), *call.inside.values())
    ) + 2 * one + (1 << 16)


def test_a_run_is_recorded_as_it_goes() -> None:
    _, call = network()

    def run(denoiser: Any) -> torch.Tensor:
        x = call["x"]
        for step in range(len(SIGMAS)):
            denoiser.step(step)
            x = x + 0.1 * denoiser(**{**call, "x": x})[:, : x.shape[1]].mean()
        return x

    reference = recorded(run)
    first, last = reference.steps[0].inputs["x"], reference.steps[-1].inputs["x"]
    assert not torch.equal(first, last)
    assert reference.result is not None
    assert reference.result.shape == call["x"].shape


def test_a_run_that_stops_early_is_refused() -> None:
    _, call = network()
    with pytest.raises(
        LowerError,
        match=r"^build: the run did not call the module at step 2 of stream 'main'; it must call "
        r"it once at each of the plan's 8 steps\.$",
    ):
        recorded(lambda denoiser: [denoiser(**call) for _ in range(2)])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"nothing", "holds no reference"),
        (save({"a": torch.zeros(1)}), "holds no reference"),
        (save({"a": torch.zeros(1)}, {STEM: json.dumps({"schema_version": 9})}), "version 9"),
        (save({"a": torch.zeros(1)}, {STEM: "[]"}), "holds no reference"),
    ],
)
def test_what_is_no_reference_is_refused(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "reference.safetensors"
    path.write_bytes(data)
    with pytest.raises(Turbo4DError, match=said):
        read_reference(path)


def test_a_whole_bundle_passes(bundle: Path) -> None:
    found = verify(bundle)
    names = ["prologue", *(row.key.name for row in found.manifest.variants), WHOLE_RUN]
    assert [row.name for row in found.rows] == names
    assert {row.status for row in found.rows} == {"passed"}
    assert {row.by for row in found.rows} == {AS_BUILT}
    assert found.failures(require_run=True) == ()
    for row in found.rows[:-1]:
        assert row.tolerance == relative_error(torch.float32)
        assert any(name.startswith("output") for name in row.errors)
    writes = next(row for row in found.rows[1:] if "w" in row.name.split("+")[-1])
    assert any(name.startswith("slot ") for name in writes.errors)


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


def test_without_a_reference_nothing_is_compared(bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "bare"
    shutil.copytree(bundle, place)
    manifest = read_manifest(place)
    files = {name: row for name, row in manifest.files.items() if not name.startswith(STEM)}
    (place / MANIFEST).write_text(to_json(dataclasses.replace(manifest, files=files)))
    found = verify(place)
    assert {row.status for row in found.rows} == {"not run"}
    assert "holds no reference" in found.rows[0].reason
    assert found.failures(require_run=False) == ()
    assert len(found.failures(require_run=True)) == len(found.rows)


def for_another_device(bundle: Path, place: Path) -> Path:
    """The bundle as if its engines were for a GPU that is not here."""
    shutil.copytree(bundle, place)
    manifest = read_manifest(place)
    engines = tuple(dataclasses.replace(row, engine=row.graph) for row in manifest.engines)
    target = dataclasses.replace(
        manifest.target, name="tensorrt-rtx", device="sm89", executed=False, settings={}
    )
    told = dataclasses.replace(manifest, target=target, engines=engines)
    (place / MANIFEST).write_text(to_json(told))
    return place


@pytest.mark.skipif(torch.cuda.is_available(), reason="wants a machine without a GPU")
def test_engines_for_another_device_are_rows_of_their_own(bundle: Path, tmp_path: Path) -> None:
    place = for_another_device(bundle, tmp_path / "elsewhere")
    found = verify(place)
    as_built = [row for row in found.rows if row.by == AS_BUILT]
    stand_in = [row for row in found.rows if row.by == STAND_IN]
    assert {row.status for row in as_built} == {"not run"}
    assert all("GPU" in row.reason for row in as_built)
    assert {row.status for row in stand_in} == {"passed"}
    assert [row.name for row in stand_in] == [*(row.name for row in as_built), WHOLE_RUN]
    assert found.failures(require_run=False) == ()
    assert [row.name for row in found.failures(require_run=True)] == [row.name for row in as_built]
    alone = verify(place, strict=True)
    assert {row.by for row in alone.rows} == {AS_BUILT}


def test_a_damaged_file_is_refused_by_name(bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "damaged"
    shutil.copytree(bundle, place)
    path = next(place.glob(f"{STEM}.*"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=path.name):
        verify(place)


def test_a_conditional_bundle_passes(tmp_path: Path) -> None:
    found = verify(built(tmp_path / "bundle", "conditional"))
    assert {row.status for row in found.rows} == {"passed"}


def test_what_a_run_may_be_off_follows_from_its_plan() -> None:
    plan, one = parts().plan, relative_error(torch.float32)
    assert run_tolerance(torch.float32, plan) == 2 * one
    row = {"core": Action("reuse", mix=(-1.5, 2.0))}
    streams = {"main": (*plan.streams["main"][:-1], row)}
    fitted = dataclasses.replace(plan, streams=streams)
    assert run_tolerance(torch.float32, fitted) == pytest.approx(4.5 * one)


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


def test_each_row_says_why_its_own_engine_does_not_run(bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "native"
    shutil.copytree(bundle, place)
    manifest = read_manifest(place)
    engines = tuple(
        dataclasses.replace(row, engine="" if row.name == "compute" else row.graph)
        for row in manifest.engines
    )
    target = dataclasses.replace(manifest.target, name="aot-inductor", settings={})
    told = dataclasses.replace(manifest, target=target, engines=engines)
    (place / MANIFEST).write_text(to_json(told))
    reasons = {row.name: row.reason for row in verify(place, strict=True).rows}
    native = (
        "AOTInductor on cpu: its file holds native code; load it with allow_native=True where you "
        "trust it"
    )
    assert reasons.pop("compute") == "AOTInductor on cpu: no engine was built"
    assert {*reasons.values()} == {native}


def test_engines_beside_one_that_does_not_open_say_so(bundle: Path, tmp_path: Path) -> None:
    def change(place: Path, manifest: Manifest) -> str:
        row = next(row for row in manifest.engines if row.name == "compute+core.w")
        (place / row.graph).write_bytes(b"no graph")
        return row.graph

    place = damaged(bundle, tmp_path / "damaged", change)
    reasons = {row.name: row.reason for row in verify(place, strict=True).rows}
    first = reasons.pop("compute+core.w")
    assert first.startswith("ONNX Runtime as built on cpu: ONNX Runtime ")
    assert {*reasons.values()} == {
        "it runs here as it was built, and engine 'compute+core.w' of the same bundle does not"
    }


def test_a_damaged_file_is_no_engine_that_cannot_run(bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "damaged"
    shutil.copytree(bundle, place)
    next(place.glob(f"{STEM}.*")).unlink()
    with pytest.raises(BundleError, match=STEM):
        verify(place, strict=True)


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
    assert _looser(gives, call) == {"given_2": 10.0, "given_3": 1.0, "given_4": math.inf}
    one = dataclasses.replace(call, sizes={1: 20.0})
    assert _looser(gives, one) == {"given_3": 2.0}
