"""ONNX Runtime: weights read where they lie or laid out anew, and devices that are not here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from turbo4d.runtime.engines.onnxruntime import OnnxSession, why_not_here
from turbo4d.runtime.errors import EngineError, Turbo4DError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
TYPES = {torch.float32: 1, torch.float16: 10, torch.bfloat16: 16, torch.int64: 7, torch.bool: 9}


def graph(folder: Path, weight: Tensor, kind: str = "Gemm") -> Path:
    """A product, or what takes one tensor, with its weight in a file beside it."""
    make, number = onnx.helper, TYPES[weight.dtype]
    path = folder / "weights.bin"
    path.write_bytes(weight.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    held = onnx.TensorProto(name="w", data_type=number, dims=weight.shape,
                            data_location=onnx.TensorProto.EXTERNAL)  # fmt: skip
    held.external_data.add(key="location", value=path.name)
    held.external_data.add(key="length", value=str(path.stat().st_size))
    given = make.make_tensor_value_info("x", 1, [2, *weight.shape[:1]])
    if kind == "Gemm":
        nodes, taken = [make.make_node("Gemm", ["x", "w"], ["y"])], [given]
        result = make.make_tensor_value_info("y", number, [2, weight.shape[1]])
    else:
        nodes, taken = [make.make_node(kind, ["w"], ["y"])], []
        result = make.make_tensor_value_info("y", number, weight.shape)
    made = make.make_graph(nodes, "g", taken, [result], initializer=[held])
    model = make.make_model(made, opset_imports=[make.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "g.onnx")
    return folder / "g.onnx"


def convolution(folder: Path, weight: Tensor) -> Path:
    path, make = graph(folder, weight, "Identity"), onnx.helper
    model = onnx.load(path, load_external_data=False)
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.append(make.make_node("Conv", ["x", "w"], ["y"]))
    model.graph.input.append(make.make_tensor_value_info("x", 1, [2, 64, 5, 5]))
    model.graph.output.append(make.make_tensor_value_info("y", 1, [2, 64, 3, 3]))
    onnx.save(model, path)
    return path


def test_shared_weights_are_read_where_they_lie(tmp_path: Path) -> None:
    weight, x = torch.rand(64, 96), torch.rand(2, 64)
    path = graph(tmp_path, torch.zeros(64, 96))
    sessions = [OnnxSession(path, threads=1, weights={"w": weight}) for _ in range(2)]
    for _ in range(2):
        for session in sessions:
            torch.testing.assert_close(session([x])[0], x @ weight)
        weight += 1


def test_shared_weights_of_convolutions_are_too(tmp_path: Path) -> None:
    weight, x = torch.rand(64, 64, 3, 3), torch.rand(2, 64, 5, 5)
    session = OnnxSession(convolution(tmp_path, weight), threads=1, weights={"w": weight})
    for _ in range(2):
        wanted = torch.nn.functional.conv2d(x, weight)
        torch.testing.assert_close(session([x])[0], wanted, atol=1e-3, rtol=1e-5)
        weight += 1


def test_packed_weights_are_a_copy(tmp_path: Path) -> None:
    weight, x = torch.rand(64, 96), torch.rand(2, 64)
    session = OnnxSession(graph(tmp_path, weight), threads=1)
    (tmp_path / "weights.bin").unlink()
    torch.testing.assert_close(session([x])[0], x @ weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_weights_of_any_dtype_can_be_shared(tmp_path: Path, dtype: torch.dtype) -> None:
    weight = torch.tensor([[0, 1], [3, 2]]).to(dtype)
    session = OnnxSession(graph(tmp_path, weight, "Identity"), weights={"w": weight})
    (found,) = session([])
    assert found.dtype == dtype
    assert torch.equal(found, weight)


@pytest.mark.parametrize("weight", [torch.tensor(3.0), torch.rand(3, 4).T])
def test_weights_of_any_form_can_be_shared(tmp_path: Path, weight: Tensor) -> None:
    session = OnnxSession(graph(tmp_path, weight, "Identity"), weights={"w": weight})
    assert torch.equal(session([])[0], weight)


def test_what_is_not_here_is_said(tmp_path: Path) -> None:
    path = graph(tmp_path, torch.rand(2, 2))
    said = why_not_here("tpu")
    assert said == "device 'tpu' is unknown to it; there are cpu, cuda, tensorrt, tensorrt-rtx"
    assert why_not_here("cpu") is None
    if why_not_here("cuda") is None:
        pytest.skip("this machine has a GPU and the library that runs on it")
    with pytest.raises(EngineError, match=r"^ONNX Runtime cannot run 'g.onnx': .+\.$"):
        OnnxSession(path, device="cuda")


def test_what_the_library_refuses_is_one_sentence(tmp_path: Path) -> None:
    path = graph(tmp_path, torch.rand(2, 2))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(EngineError) as caught:
        OnnxSession(path)
    assert "does not take 'g.onnx' on cpu: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tensor_of_another_form_is_refused(tmp_path: Path) -> None:
    session: Any = OnnxSession(graph(tmp_path, torch.rand(2, 2)))
    with pytest.raises(Turbo4DError) as caught:
        session([torch.rand(3, 2)])
    assert str(caught.value) == (
        "input 'x' is torch.float32[3, 2] on cpu; the graph takes torch.float32[2, 2] on cpu."
    )
