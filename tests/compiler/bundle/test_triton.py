"""Target triton: the configuration is what the server's protocol says, the model serves runs."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from turbo4d.compiler.bundle.targets import target_of
from turbo4d.compiler.bundle.triton import config_text
from turbo4d.runtime.bundle.load import load
from turbo4d.runtime.bundle.manifest_file import read_manifest
from turbo4d.runtime.errors import OptionError

import turbo4d
from tests.compiler.bundle.networks import SIGMAS, assembled, network

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TURBO4D_ENGINE_STORE", str(tmp_path_factory.mktemp("store")))
        folder = tmp_path_factory.mktemp("triton") / "bundle"
        assembled(folder, target_of("triton"), "a chain")
    return folder


class FakeTensor:
    """As the server's, as far as a model of ours looks."""

    def __init__(self, name: str, value: Tensor) -> None:
        self.name, self.value = name, value

    @classmethod
    def from_dlpack(cls, name: str, value: Any) -> FakeTensor:
        return cls(name, torch.from_dlpack(value))

    def to_dlpack(self) -> Any:
        return self.value.__dlpack__()

    def as_numpy(self) -> Any:
        return self.value.numpy()


class FakeServer(types.ModuleType):
    """Stands for `triton_python_backend_utils`."""

    Tensor = FakeTensor
    TritonError = str

    @staticmethod
    def get_input_tensor_by_name(request: Mapping[str, Tensor], name: str) -> FakeTensor | None:
        return FakeTensor(name, request[name]) if name in request else None

    @staticmethod
    def InferenceResponse(output_tensors: list[FakeTensor], error: str | None = None) -> Any:
        return types.SimpleNamespace(outputs=output_tensors, error=error)


@pytest.fixture
def model(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model as the server loads it: from the file in the repository."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", FakeServer("fake"))
    place = bundle / "triton" / "a_chain"
    found = loaded(place / "1" / "model.py").TritonPythonModel()
    found.initialize(
        {
            "model_config": json.dumps({"parameters": {"bundle": {"string_value": ""}}}),
            "model_repository": str(place),
            "model_instance_kind": "CPU",
        }
    )
    yield found
    found.finalize()


def requests(run: int, steps: int = len(SIGMAS), whole: bool = False) -> list[dict[str, Tensor]]:
    """One request for each step; but for the first without conditioning."""
    _, call = network()
    inputs = {name: value for name, value in call.items() if isinstance(value, Tensor)}
    varying = ("x", "timesteps")
    found: list[dict[str, Tensor]] = []
    for step in range(steps):
        given = {**inputs, "x": inputs["x"] + 0.1 * step + run}
        kept = given if whole or not step else {name: given[name] for name in varying}
        controls = {"START": step == 0, "END": step == steps - 1, "CORRID": 7 + run}
        found.append({**kept, **{name: torch.tensor([int(v)]) for name, v in controls.items()}})
    return found


def wanted(bundle: Path, run: int) -> list[Tensor]:
    denoiser = load(bundle)
    found: list[Tensor] = []
    with turbo4d.session(denoiser.runner, plan=denoiser.plan) as session, torch.no_grad():
        for step, request in enumerate(requests(run, whole=True)):
            session.step(step)
            names = denoiser.manifest.signature.names
            found.append(denoiser.runner(*(request[name] for name in names))[0])
    return found


def test_sequences_that_interleave_are_runs_of_their_own(bundle: Path, model: Any) -> None:
    first, second = requests(0), requests(1)
    got: dict[int, list[Tensor]] = {0: [], 1: []}
    for pair in zip(first, second, strict=True):
        for run, response in enumerate(model.execute(list(pair))):
            assert response.error is None, response.error
            got[run].append(response.outputs[0].value.clone())
    assert [each.name for each in model.execute([requests(0)[0]])[0].outputs] == ["output_0"]
    for run, results in got.items():
        for ours, theirs in zip(results, wanted(bundle, run), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"START": 0}, "sequence 7 is not open"),
        ({"x": None}, "step 0 of the sequence lacks input 'x'"),
    ],
)
def test_a_wrong_request_is_an_error_of_its_own(
    change: dict[str, Any], said: str, model: Any
) -> None:
    request = requests(0)[0]
    for name, value in change.items():
        request.pop(name)
        if value is not None:
            request[name] = torch.tensor([value])
    responses = model.execute([request, requests(1)[0]])
    assert said in responses[0].error
    assert responses[1].error is None


def test_a_sequence_ends_with_the_plan(model: Any) -> None:
    steps = requests(0, len(SIGMAS) + 1)
    answers = [model.execute([request])[0].error for request in steps]
    assert answers[:-1] == [None] * len(SIGMAS)
    assert answers[-1].startswith("the sequence is past step 7, the plan's last;")


def server_protocol() -> Any:
    """The server's own definitions; the package around them would want grpc."""
    client = importlib.util.find_spec("tritonclient")
    if client is None or not client.submodule_search_locations:
        pytest.skip("tritonclient is not installed")
    path = Path(client.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    return loaded(path)


def loaded(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_configuration_is_the_servers(bundle: Path) -> None:
    from google.protobuf import text_format

    protocol = server_protocol()
    manifest = read_manifest(bundle)
    text = (bundle / "triton" / "a_chain" / "config.pbtxt").read_text()
    assert text == config_text("a_chain", manifest)
    config = text_format.Parse(text, protocol.ModelConfig())
    assert config.name == "a_chain"
    assert (config.backend, config.max_batch_size) == ("python", 0)
    assert [each.name for each in config.input] == [*manifest.signature.names]
    conditioning = {manifest.signature.names[at] for at in manifest.signature.conditioning}
    assert {each.name for each in config.input if each.optional} == conditioning
    assert [each.name for each in config.output] == ["output_0"]
    controls = {each.name: each.control[0].kind for each in config.sequence_batching.control_input}
    kinds = protocol.ModelSequenceBatching.Control
    assert controls == {
        "START": kinds.CONTROL_SEQUENCE_START,
        "END": kinds.CONTROL_SEQUENCE_END,
        "CORRID": kinds.CONTROL_SEQUENCE_CORRID,
    }
    assert config.sequence_batching.oldest.max_candidate_sequences > 1


def test_another_device_is_refused() -> None:
    with pytest.raises(OptionError, match="choose 'triton:cpu' or 'triton:cuda'"):
        target_of("triton:sm89")
