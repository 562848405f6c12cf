"""Targets tensorrt and tensorrt-rtx: real engines, built with no GPU; none of them is run."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from turbo4d.compiler.bundle.graphs import write_part
from turbo4d.compiler.bundle.targets import BuildRequest, target_of
from turbo4d.compiler.bundle.weights_file import PlacedWeights, write_weights
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.lower.onnx_export import write_graph
from turbo4d.passes.base import emit
from turbo4d.runtime.bundle.manifest import EngineRow, TensorRow, WeightRow
from turbo4d.runtime.bundle.manifest_file import read_manifest
from turbo4d.runtime.engines.tensorrt import TensorRTSession
from turbo4d.runtime.engines.tensorrt_build import BuildSettings, build, devices, why_not_built
from turbo4d.runtime.engines.weight_inputs import weights_as_inputs
from turbo4d.runtime.errors import BundleError, EngineError, OptionError

import turbo4d
from tests.compiler.bundle.networks import SIGMAS, assembled, network, parts

onnx = pytest.importorskip("onnx", reason="graphs are written with onnx")
pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX builds these engines")
RTX = "tensorrt-rtx"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Small(nn.Module):
    """A convolution, a norm, a product and an attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 64, 3, padding=1)
        self.norm = nn.LayerNorm(64)
        self.out = nn.Linear(64, 8192)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x).flatten(2).transpose(1, 2))
        return self.out(y + torch.nn.functional.scaled_dot_product_attention(y, y, y))


def small(folder: Path, dtype: torch.dtype = torch.float32) -> BuildRequest:
    """What a build asks a target for."""
    module, x = Small().to(dtype).eval(), torch.rand(2, 4, 8, 8, dtype=dtype)
    capture = capture_export(module, (x,))
    values = {row.name: capture.weights[row.target] for row in capture.table[:-1]}
    names = {row.name: row.target for row in capture.table}
    weights = {names[name]: value for name, value in values.items()}
    with (folder / "weights.bin").open("wb") as file:
        rows = {row.name: row for row in write_weights(weights, file, lambda text: None)}
    held = {name: rows[names[name]] for name in values}
    graph, places = folder / "graph.onnx", PlacedWeights(folder / "weights.bin", held)
    write_graph("small", capture.module, values, ["output_0"], graph, places)
    said = str(dtype).removeprefix("torch.")
    return request_of(
        capture.module, graph, held, values,
        TensorRow(capture.table[-1].name, "input", "x", tuple(x.shape), said),
        TensorRow("output_0", "output", "0", (2, 64, 8192), said),
    )  # fmt: skip


def request_of(
    module: fx.GraphModule, graph: Path, held: Any, values: Any, takes: TensorRow, gives: TensorRow
) -> BuildRequest:
    return BuildRequest(
        name="compute", graph=graph, weights=graph.parent / "weights.bin", held=held,
        takes=(takes,), gives=(gives,), module=module, values=values, given=(), wanted=(),
        scratch=graph.parent, flops=0, say=lambda text: None,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_an_engine_takes_its_weights_from_outside(dtype: torch.dtype, tmp_path: Path) -> None:
    request = small(tmp_path, dtype)
    built = target_of("tensorrt-rtx:sm89").build(request)
    assert built.engine is not None
    assert built.takes[:1] == request.takes
    assert {row.name: row.source for row in built.takes[1:]} == {
        name: row.name for name, row in request.held.items()
    }
    for row in built.takes[1:]:
        value = request.values[row.name]
        found = getattr(torch, row.dtype)
        assert (row.kind, row.shape, found) == ("weight", tuple(value.shape), value.dtype)
    assert built.gives == request.gives
    assert not built.executed
    assert built.facts["graph_nodes"] == built.facts["nodes_taken"] == built_nodes(request)


def built_nodes(request: BuildRequest) -> int:
    return len(onnx.load(request.graph, load_external_data=False).graph.node)


def test_an_engine_with_its_weights_within_is_larger_by_them(tmp_path: Path) -> None:
    request = small(tmp_path)
    outside, inside = (
        build(request.graph, BuildSettings(RTX, "sm120", way)) for way in ("inputs", "embedded")
    )
    held = sum(value.numel() * value.element_size() for value in request.values.values())
    assert len(inside.data) - len(outside.data) > 0.8 * held
    assert inside.inputs == outside.inputs[:1] == tuple(row.name for row in request.takes)
    assert outside.inputs[1:] == tuple(request.held)
    assert inside.outputs == outside.outputs == ("output_0",)
    assert outside.layers > outside.nodes > 5
    streamed = BuildSettings(RTX, "sm89", "embedded", weight_streaming=True)
    assert len(build(request.graph, streamed).data) > held


def test_a_bundle_is_built_for_a_gpu_and_says_that_it_runs_elsewhere(tmp_path: Path) -> None:
    module, call = network()
    folder = tmp_path / "bundle"
    assembled(folder, target_of("tensorrt-rtx:sm89"))
    manifest = read_manifest(folder)
    assert (manifest.target.name, manifest.target.device) == ("tensorrt-rtx", "sm89")
    assert not manifest.target.executed
    held = {row.name for row in manifest.weights}
    for row in manifest.engines:
        weights = {each.source for each in row.takes if each.kind == "weight"}
        assert weights
        assert weights <= held
        assert row.engine.endswith(".engine.z")
        assert zlib.decompress((folder / row.engine).read_bytes())[:4] == b"vtrt"
        assert row.graph.endswith(".onnx")
    if torch.cuda.is_available():
        return
    loaded = turbo4d.load(folder)
    with turbo4d.session(loaded, steps=len(SIGMAS), levels=SIGMAS) as run, torch.no_grad():
        run.step(0)
        found = loaded(**call)
    (event,) = [e for e in run.report()["events"] if e["kind"] == "engine-fallback"]
    said = "engines built for tensorrt-rtx on sm89 run by ONNX Runtime on cpu"
    assert said in str(event["message"])
    with torch.no_grad():
        torch.testing.assert_close(found, module(**call), atol=1e-4, rtol=1e-4)
    with pytest.raises(BundleError, match="TensorRT-RTX on cpu: it runs on a GPU, not on cpu"):
        turbo4d.load(folder, strict=True)


def test_the_regions_of_a_conditional_engine_are_taken(tmp_path: Path) -> None:
    whole = parts("conditional")
    part = whole.graphs[-1]
    weights = tmp_path / "weights.bin"
    with weights.open("wb") as file:
        rows = {row.name: row for row in write_weights(whole.weights, file, lambda text: None)}
    write_part(part, tmp_path / "graph.onnx", weights, rows, whole.weights)
    plan = build(tmp_path / "graph.onnx", BuildSettings(RTX, "sm89"))
    taken = [row.name for row in part.takes]
    assert [row.kind for row in part.takes].count("flag") > 0
    assert [*plan.inputs[: len(taken)]] == taken
    assert {*plan.inputs[len(taken) :]} == {*part.held}
    assert [*plan.outputs] == [row.name for row in part.gives]


def one_call(target: Any, given: Sequence[torch.Tensor], folder: Path, kind: str) -> BuildRequest:
    """A graph of one operator, written as one ONNX node of a kind."""
    graph = fx.Graph()
    places = [graph.placeholder(name) for name in ("i_x", "w_0")[: len(given)]]
    for place, value in zip(places, given, strict=True):
        place.meta["val"] = value
    node = emit(graph, target, *places)
    node.meta["module"] = "down.0.camera"
    graph.output((node,))
    described = onnx.helper.make_tensor_value_info
    proto = onnx.helper.make_graph(
        [onnx.helper.make_node(kind, [place.name for place in places], [node.name])],
        "one",
        [described(place.name, 1, [*place.meta["val"].shape]) for place in places],
        [described(node.name, 1, [*node.meta["val"].shape])],
    )
    path = folder / "one.onnx"
    opset = onnx.helper.make_opsetid("", 20)
    onnx.save(onnx.helper.make_model(proto, opset_imports=[opset], ir_version=10), path)
    held = {"w_0": WeightRow("down.0.camera.norm.weight", 0, 36, (3, 3), "float32")}
    return request_of(
        fx.GraphModule(nn.Module(), graph), path, held, {},
        TensorRow("i_x", "input", "x", tuple(given[0].shape), "float32"),
        TensorRow(node.name, "output", "0", tuple(given[0].shape), "float32"),
    )  # fmt: skip


def test_an_operator_it_does_not_take_is_named_with_its_module(tmp_path: Path) -> None:
    x = torch.rand(3, 3)
    request = one_call(torch.ops.aten.add.Tensor, [x, x], tmp_path, "BitwiseAnd")
    with pytest.raises(LowerError) as caught:
        target_of("tensorrt-rtx:sm89").build(request)
    text = str(caught.value)
    assert text.startswith(
        "variant 'compute' cannot be built by tensorrt-rtx: BitwiseAnd, of aten.add.Tensor at "
        f"%{request.gives[0].name} in module 'down.0.camera': "
    )
    assert text.endswith(
        "; no pass removes it; write it otherwise in the model, or build for target 'onnxruntime'."
    )


def test_devices_are_those_of_the_library() -> None:
    assert {"sm75", "sm80", "sm86", "sm89", "sm120", "sm121"} <= {*devices(RTX)}
    reason = why_not_built(BuildSettings(RTX, "sm90"))
    assert reason == f"tensorrt-rtx builds for {', '.join(devices(RTX))}, not for 'sm90'"
    assert target_of("tensorrt-rtx:sm90").reasons() == (reason,)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_needs_a_gpu_says_so() -> None:
    assert target_of(RTX).reasons() == (
        "torch sees no GPU here to build for; name the one that engines are for, such as "
        "'tensorrt-rtx:sm89'",
    )
    refit = BuildSettings(RTX, "sm89", "embedded", refit=True)
    assert why_not_built(refit) == (
        "an engine that can be refitted is built on a GPU, and torch sees none here"
    )
    if find_spec("tensorrt") is None:
        (reason,) = target_of("tensorrt").reasons()
        assert reason.startswith("target 'tensorrt' needs the package tensorrt, which")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_library_opens_no_engine_and_says_why(tmp_path: Path) -> None:
    plan = build(small(tmp_path).graph, BuildSettings(RTX, "sm89"))
    row = EngineRow("compute", (), ())
    for data in (plan.data, plan.data[:1000], b"no engine"):
        with pytest.raises(EngineError, match=r"^engine 'compute' does not open: .+"):
            TensorRTSession(RTX, data, row, {}, device="cpu")


def test_refit_and_streaming_are_of_weights_within() -> None:
    said = "refit and weight streaming are of weights within"
    with pytest.raises(OptionError, match=said):
        BuildSettings(RTX, "sm89", refit=True)
    with pytest.raises(OptionError, match=said):
        BuildSettings(RTX, "sm89", weight_streaming=True)


@pytest.mark.parametrize(
    ("spelled", "settings", "said"),
    [
        ("tensorrt-rtx:ada", {}, "target 'tensorrt-rtx:ada' names no GPU; write its compute"),
        (f"{RTX}:sm89", {"refit": "maybe"}, "setting refit is 'maybe'; wanted 'no' or 'yes'"),
        (f"{RTX}:sm89", {"speed": "1"}, "has no setting 'speed'; there are: 'cuda_graphs', 'ref"),
        (f"{RTX}:sm89", {"weights": "none"}, "weights is 'none'; wanted 'embedded' or 'inputs'"),
        (f"{RTX}:sm89", {"streaming_budget_mib": "all"}, "_mib is 'all'; wanted a whole number"),
        (f"{RTX}:sm89", {"streaming_budget_mib": "64"}, "of streamed weights; set weight_stream"),
    ],
)
def test_a_wrong_call_is_refused(spelled: str, settings: dict[str, str], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        target_of(spelled, settings)


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"\xff\xff\xff")
    with pytest.raises(EngineError, match=r"graph\.onnx is no ONNX graph"):
        weights_as_inputs(path)
    request = replace(small(tmp_path), graph=tmp_path / "missing.onnx")
    with pytest.raises(LowerError, match=r"missing\.onnx is no ONNX graph"):
        target_of("tensorrt-rtx:sm89").build(request)
