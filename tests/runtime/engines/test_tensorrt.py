"""Engines of TensorRT as the runtime calls them, with a stand-in for the library and its GPU.

The stand-in reads and writes at the addresses that it was given, so what is bound where is what
these tests see. The library itself opens no engine without a GPU.
"""

from __future__ import annotations

import ctypes
import enum
import zlib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from turbo4d.runtime.bundle.manifest import EngineRow, TensorRow
from turbo4d.runtime.engines import tensorrt
from turbo4d.runtime.engines.kernel_cache import kernel_cache_path
from turbo4d.runtime.engines.tensorrt import TensorRTSession, library, open_engine, open_kit
from turbo4d.runtime.engines.tensorrt_build import rebuild_engine
from turbo4d.runtime.errors import EngineError

SHAPE = (2, 3)


def row(name: str, kind: Any, source: str, dtype: str = "float32") -> TensorRow:
    return TensorRow(name, kind, source, () if kind == "flag" else SHAPE, dtype)


ROW = EngineRow(
    name="compute",
    takes=(
        row("i_x", "input", "x"),
        row("slot_core", "slot", "core"),
        row("skip_core", "flag", "core", "bool"),
        row("w_0", "weight", "scale"),
    ),
    gives=(row("output_0", "output", "0"), row("new_slot_core", "slot", "core")),
)


def at(address: int) -> Tensor:
    """Six numbers in memory, as a tensor that shares it."""
    held = (ctypes.c_float * 6).from_address(address)
    return torch.frombuffer(held, dtype=torch.float32).reshape(SHAPE)


class Enum(enum.Enum):
    INPUT, OUTPUT, HOST, DEVICE, FLOAT, BOOL = range(6)


class Engine:
    """Gives input * weight + slot, and the slot plus one, unless the flag is set."""

    num_io_tensors = 6

    def __init__(self) -> None:
        self.bound: dict[str, int] = {}
        self.calls: list[int] = []
        self.runs = True
        self.rows = {each.name: each for each in (*ROW.takes, *ROW.gives)}

    def get_tensor_name(self, at: int) -> str:
        return [*self.rows][at]

    def get_tensor_mode(self, name: str) -> Enum:
        return Enum.OUTPUT if self.rows[name] in ROW.gives else Enum.INPUT

    def get_tensor_dtype(self, name: str) -> Enum:
        return Enum.BOOL if name == "skip_core" else Enum.FLOAT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.rows[name].shape

    def get_tensor_location(self, name: str) -> Enum:
        return Enum.HOST if name == "skip_core" else Enum.DEVICE

    def create_execution_context(self, config: Any = None) -> Engine:
        return self

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.bound[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.calls.append(stream)
        bound = self.bound
        if not ctypes.c_bool.from_address(bound["skip_core"]).value:
            made = at(bound["i_x"]) * at(bound["w_0"]) + at(bound["slot_core"])
            at(bound["output_0"]).copy_(made)
            at(bound["new_slot_core"]).copy_(at(bound["slot_core"]) + 1)
        return self.runs


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine that the stand-in opens of the plan b"whole"."""
    found = Engine()
    log = SimpleNamespace(said=["the plan is damaged"])
    opened = SimpleNamespace(deserialize_cuda_engine={b"whole": found}.get)
    module = SimpleNamespace(
        Runtime=lambda log: opened,
        TensorIOMode=Enum,
        TensorLocation=Enum,
        CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole"),
    )
    monkeypatch.setattr(tensorrt, "library", lambda target: module)
    monkeypatch.setattr(tensorrt, "log_of", lambda target: log)
    monkeypatch.setattr(tensorrt, "_stream", lambda: 7)
    return found


WEIGHTS = {"scale": torch.full(SHAPE, 3.0)}
X, SLOT, COMPUTED = torch.rand(SHAPE), torch.rand(SHAPE), torch.tensor(False)


def opened(row: EngineRow = ROW, weights: Any = WEIGHTS, plan: bytes = b"whole") -> TensorRTSession:
    return TensorRTSession("tensorrt", plan, row, weights, device="cpu")


def test_tensors_are_read_where_they_are_and_weights_are_bound_once(engine: Engine) -> None:
    session = opened()
    assert engine.bound == {"w_0": WEIGHTS["scale"].data_ptr()}
    first = session([X, SLOT, COMPUTED])
    torch.testing.assert_close(first, [X * 3 + SLOT, SLOT + 1])
    assert engine.bound["i_x"] == X.data_ptr()
    assert engine.bound["slot_core"] == SLOT.data_ptr()
    assert engine.bound["new_slot_core"] == first[1].data_ptr()
    second = session([X, first[1], COMPUTED])
    torch.testing.assert_close(second[1], SLOT + 2)
    torch.testing.assert_close(first[1], SLOT + 1)
    assert engine.calls == [7, 7]


def test_a_tensor_of_another_form_is_refused(engine: Engine) -> None:
    session = opened()
    for given, said in (
        (X.double(), "float64[2, 3] on cpu"),
        (X[:1], "float32[1, 3] on cpu"),
        (X.to("meta"), "float32[2, 3] on meta"),
    ):
        with pytest.raises(EngineError) as caught:
            session([given, SLOT, COMPUTED])
        assert str(caught.value) == (
            f"input 'i_x' is {said}; engine 'compute' takes float32[2, 3] on cpu."
        )
    assert engine.calls == []


def test_a_plan_that_does_not_open_is_refused_in_the_library_s_words(engine: Engine) -> None:
    with pytest.raises(EngineError) as caught:
        opened(plan=b"damaged")
    assert str(caught.value) == "engine 'compute' does not open: the plan is damaged"


def test_a_run_that_fails_is_an_error(engine: Engine) -> None:
    session = opened()
    engine.runs = False
    with pytest.raises(EngineError, match="engine 'compute' did not run: the plan is damaged"):
        session([X, SLOT, COMPUTED])


def test_an_engine_that_is_not_its_row_is_refused(engine: Engine) -> None:
    other = replace(ROW.gives[0], shape=(2, 4))
    with pytest.raises(EngineError) as caught:
        opened(replace(ROW, gives=(other, ROW.gives[1])))
    assert str(caught.value) == (
        "engine 'compute' has 'output_0' as (False, (2, 3), torch.float32); its row says "
        "(False, (2, 4), torch.float32). Build the bundle again."
    )


def test_an_engine_that_asks_for_more_than_its_row_is_refused(engine: Engine) -> None:
    with pytest.raises(EngineError, match=r"has 'w_0' as .*; its row says None"):
        opened(replace(ROW, takes=ROW.takes[:3]))


def test_weights_of_another_form_are_refused(engine: Engine) -> None:
    with pytest.raises(EngineError, match=r"input 'w_0' is float16\[2, 3\] on cpu"):
        opened(weights={"scale": torch.ones(SHAPE, dtype=torch.float16)})


def test_without_the_library_it_is_named() -> None:
    if find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed")
    with pytest.raises(EngineError, match="target 'tensorrt' needs the package tensorrt, which"):
        library("tensorrt")


class Streaming(Engine):
    """Holds 4 MiB of weights that may stay on the host, as far as it was built so."""

    streamable_weights_size = 4 << 20

    def __init__(self, streams: bool) -> None:
        super().__init__()
        self.streams = streams
        self._budget = self.streamable_weights_size

    @property
    def weight_streaming_budget_v2(self) -> int:
        return self._budget

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, budget: int) -> None:
        if self.streams:
            self._budget = budget


@pytest.mark.parametrize(("asked_mib", "kept_mib"), [("3", 3), ("100", 4), ("0", 0)])
def test_a_budget_bounds_what_lies_on_the_gpu(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked_mib: str, kept_mib: int
) -> None:
    held: Any = Held(tmp_path)
    settings = {"streaming_budget_mib": asked_mib}
    target = SimpleNamespace(name="tensorrt", settings=settings)
    monkeypatch.setattr(held, "manifest", SimpleNamespace(target=target))
    found = Streaming(streams=True)
    library_ = SimpleNamespace(deserialize_cuda_engine={b"whole": found}.get)
    monkeypatch.setattr(tensorrt.library("tensorrt"), "Runtime", lambda log: library_)
    tensorrt.open_plan(held, ROW, held, b"whole")
    assert found.weight_streaming_budget_v2 == kept_mib << 20
    if kept_mib == 4:
        return
    found = Streaming(streams=False)
    library_.deserialize_cuda_engine = {b"whole": found}.get
    with pytest.raises(EngineError, match=r"^engine 'compute' does not stream its weights within"):
        tensorrt.open_plan(held, ROW, held, b"whole")


class Compiling(Engine):
    """Compiles its kernels when its context is made, unless the cache has them."""

    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self.said = said
        self.held = b""

    def create_runtime_config(self) -> Compiling:
        return self

    def create_runtime_cache(self) -> Compiling:
        return self

    def set_runtime_cache(self, cache: Any) -> bool:
        assert cache is self
        return True

    def deserialize(self, data: bytes) -> bool:
        self.held = data if data == b"kernels" else b""
        return bool(self.held)

    def serialize(self) -> bytes:
        return self.held

    def create_execution_context(self, config: Any = None) -> Engine:
        self.said.append("taken" if self.held else "compiled")
        self.held = b"kernels"
        return self


def test_kernels_are_kept_between_processes(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said: list[str] = []
    made = SimpleNamespace(deserialize_cuda_engine=lambda plan: Compiling(said))
    monkeypatch.setattr(tensorrt.library("tensorrt"), "Runtime", lambda log: made)
    opened()  # not run: nothing is kept
    for _ in range(2):
        opened()([X, SLOT, COMPUTED])
    path = kernel_cache_path(b"whole")
    assert path.read_bytes() == b"kernels"
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    path.write_bytes(b"of another driver")
    opened()([X, SLOT, COMPUTED])
    assert path.read_bytes() == b"kernels"
    assert said == ["compiled", "compiled", "taken", "compiled"]
    assert kernel_cache_path(b"other") != path
    path.unlink()
    path.mkdir()  # nothing can be written there
    torch.testing.assert_close(opened()([X, SLOT, COMPUTED])[1], SLOT + 1)


class Held:
    """A bundle, and its weights."""

    device = "cpu"
    manifest = SimpleNamespace(target=SimpleNamespace(name="tensorrt", settings={}))

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / name

    def on(self, name: str, device: torch.device) -> Tensor:
        return WEIGHTS[name].to(device)


def test_an_engine_of_a_bundle_has_the_bundle_s_weights(engine: Engine, tmp_path: Path) -> None:
    held: Any = Held(tmp_path)
    for name, data in (("a.engine", b"whole"), ("a.engine.z", zlib.compress(b"whole"))):
        (tmp_path / name).write_bytes(data)
        engine.bound.clear()
        open_engine(held, replace(ROW, engine=name), held)
        assert engine.bound == {"w_0": WEIGHTS["scale"].data_ptr()}
    (tmp_path / "a.engine.z").write_bytes(b"whole")
    with pytest.raises(EngineError, match=r"a\.engine\.z does not unpack \(.*\); build it again"):
        open_engine(held, replace(ROW, engine="a.engine.z"), held)


def test_a_kit_says_where_its_engines_are_built(tmp_path: Path) -> None:
    held: Any = Held(tmp_path)
    with pytest.raises(EngineError, match=r"engines of a tensorrt kit are built on it; run build"):
        open_kit(held, ROW, held)


def test_an_engine_is_built_anew_of_a_graph_alone(tmp_path: Path) -> None:
    held: Any = Held(tmp_path)
    with pytest.raises(EngineError, match="the bundle keeps no graph of engine 'compute'"):
        rebuild_engine(held, ROW, held)
