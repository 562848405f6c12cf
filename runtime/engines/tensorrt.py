"""TensorRT and TensorRT-RTX, whose Python interface is one: the one file that imports them.

Building for another GPU needs none (`tensorrt_build`); opening and calling an engine does. Nothing
of `TensorRTSession` that needs a GPU has been run: no machine of ours with one had the libraries.
"""

from __future__ import annotations

import importlib
import re
import threading
import zlib
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from turbo4d.runtime.bundle.manifest import EngineRow, TensorRow
from turbo4d.runtime.errors import EngineError

from .kernel_cache import KernelCache, kernel_cache_path
from .recorded_calls import RecordedCalls

if TYPE_CHECKING:
    from turbo4d.runtime.bundle.bundle_files import Bundle
    from turbo4d.runtime.bundle.weights import BundleWeights

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Targets, and the module that builds and runs their engines."""

PACKED = ".z"
"""Ends the name of an engine's file that zlib packed; one that a device built is as it was."""

_TYPES = {
    "FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16, "BOOL": torch.bool,
    "INT64": torch.int64, "INT32": torch.int32, "INT8": torch.int8, "UINT8": torch.uint8,
}  # fmt: skip
_SAID = 20
_WITHOUT_BFLOAT16 = re.compile(r"sm([1-6]\d|7\d)")


def why_not_computed(device: str, dtypes: Collection[torch.dtype]) -> str | None:
    """Why TensorRT does not compute in some dtypes on a GPU, as a clause; None where it does.

    Args:
        device: compute capability, such as "sm75"; another name is taken for a newer one.
        dtypes: of a graph's values.
    """
    if torch.bfloat16 in dtypes and _WITHOUT_BFLOAT16.fullmatch(device):
        return f"{device} has no bfloat16, which came with sm80"
    return None


@cache
def library(target: str) -> Any:
    """The module that builds and runs a target's engines.

    Raises:
        EngineError: it is not installed, or does not load.
    """
    name = MODULES[target]
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise EngineError(
            f"target {target!r} needs the package {name}, which does not import here ({error}); "
            f"install {name.replace('_', '-')}."
        ) from error


@cache
def log_of(target: str) -> Any:
    """The logger of a target's library; `said` has its last warnings and errors.

    The library wants one and the same for everything of a process.
    """
    trt = library(target)

    class Log(trt.ILogger):
        """Prints nothing."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.said: deque[str] = deque(maxlen=_SAID)

        def log(self, severity: Any, text: str) -> None:
            """Keep what went wrong."""
            if severity not in (trt.ILogger.Severity.INFO, trt.ILogger.Severity.VERBOSE):
                self.said.append(text.strip())

    return Log()


def open_engine(bundle: Bundle, row: EngineRow, weights: BundleWeights) -> TensorRTSession:
    """Open an engine of a bundle as it was built.

    Args:
        bundle: on a GPU; its files have been checked.
        row: of the engine.
        weights: of the bundle.

    Raises:
        EngineError: the library is not there, or does not open it.
    """
    library(bundle.manifest.target.name)
    data = bundle.path(row.engine).read_bytes()
    if row.engine.endswith(PACKED):
        try:
            data = zlib.decompress(data)
        except zlib.error as error:
            raise EngineError(f"{row.engine} does not unpack ({error}); build it again.") from error
    return open_plan(bundle, row, weights, data)


def open_kit(bundle: Bundle, row: EngineRow, weights: BundleWeights) -> TensorRTSession:
    """Refuse an engine that its device has yet to build.

    Raises:
        EngineError: always.
    """
    target = bundle.manifest.target.name
    raise EngineError(f"the engines of a {target} kit are built on it; run build.sh there.")


def open_plan(
    bundle: Bundle, row: EngineRow, weights: BundleWeights, plan: bytes
) -> TensorRTSession:
    """Open a serialised engine with a bundle's weights; see `open_engine`."""
    device = torch.device(bundle.device)
    held = {
        taken.source: weights.on(taken.source, device)
        for taken in row.takes
        if taken.kind == "weight"
    }
    target = bundle.manifest.target
    budget = target.settings.get("streaming_budget_mib")
    return TensorRTSession(
        target.name,
        plan,
        row,
        held,
        cuda_graphs=target.settings.get("cuda_graphs") == "yes",
        budget_bytes=None if budget is None else int(budget) << 20,
        device=bundle.device,
    )


class TensorRTSession:
    """An engine on the GPU; tensors go in and come out where they are, uncopied.

    Args:
        target: of `MODULES`.
        plan: the serialised engine, its hash checked: it is native code.
        row: what it takes and gives.
        weights: on the GPU, by their name in the bundle; they stay where they are.
        cuda_graphs: whether calls are recorded, one CUDA graph for each set of addresses, and
            played from the third call with them on. TensorRT-RTX does so by itself.
        budget_bytes: of weights within the engine that lie on the GPU, where it streams them; None
            for all.
        device: where tensors lie, such as "cuda" or "cuda:1".

    Raises:
        EngineError: the library does not open it, or it is not what the row says.
    """

    def __init__(
        self,
        target: str,
        plan: bytes,
        row: EngineRow,
        weights: Mapping[str, Tensor],
        *,
        cuda_graphs: bool = False,
        budget_bytes: int | None = None,
        device: str = "cuda",
    ) -> None:
        trt, log = library(target), log_of(target)
        self._row = row
        self._device = torch.device(device)
        self._alone = threading.Lock()  # addresses belong to the engine, not to a call
        with self._here():
            self._open(trt, log, plan, cuda_graphs, budget_bytes)
        # Held, so that the addresses stay theirs.
        self._weights = weights
        for taken in row.takes:
            if taken.kind == "weight":
                self._bind(taken, self._fitting(taken, weights[taken.source], self._device))

    def _open(
        self, trt: Any, log: Any, plan: bytes, cuda_graphs: bool, budget_bytes: int | None
    ) -> None:
        row = self._row
        self._takes = [taken for taken in row.takes if taken.kind != "weight"]
        self._runtime = trt.Runtime(log)
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(f"engine {row.name!r} does not open: {_last(log)}")
        _check(trt, self._engine, row)
        if budget_bytes is not None:
            _stream_weights(self._engine, row.name, budget_bytes)
        own_graphs = hasattr(self._engine, "create_runtime_config")
        self._kernels = KernelCache(kernel_cache_path(plan)) if own_graphs else None
        self._context: Any = (
            _context(trt, self._engine, self._kernels, cuda_graphs)
            if self._kernels is not None
            else self._engine.create_execution_context()
        )
        if self._context is None:
            raise EngineError(f"engine {row.name!r} has no room to run: {_last(log)}")
        self._log = log
        self._graphs = RecordedCalls() if cuda_graphs and not own_graphs else None
        self._on_host = {
            taken.name
            for taken in self._takes
            if self._engine.get_tensor_location(taken.name) == trt.TensorLocation.HOST
        }

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor]:
        """Run it on torch's current stream; nothing waits for the GPU.

        Args:
            given: one tensor for each row that it takes, weights left out.

        Raises:
            EngineError: one of another shape, dtype or device than its row says, or a run that the
                library refuses.
        """
        kept = [
            self._at_home(taken, tensor)
            for taken, tensor in zip(self._takes, given, strict=True)
        ]  # fmt: skip
        results = [
            torch.empty(gives.shape, dtype=getattr(torch, gives.dtype), device=self._device)
            for gives in self._row.gives
        ]
        with self._here(), self._alone:
            for row, tensor in zip(
                (*self._takes, *self._row.gives), (*kept, *results), strict=True
            ):
                self._bind(row, tensor)
            if self._graphs is None:
                self._run()
            else:
                self._graphs.run(tuple(t.data_ptr() for t in (*kept, *results)), self._run)
        return results

    def _here(self) -> AbstractContextManager[object]:
        """The GPU that the engine is on, as torch's current one."""
        on_gpu = self._device.type == "cuda"
        return torch.cuda.device(self._device) if on_gpu else nullcontext()

    def _at_home(self, row: TensorRow, tensor: Tensor) -> Tensor:
        """A tensor where the engine reads it: a flag may be wanted on the host."""
        device = torch.device("cpu") if row.name in self._on_host else self._device
        if row.kind == "flag":
            tensor = tensor.to(device)
        return self._fitting(row, tensor.detach().contiguous(), device)

    def _fitting(self, row: TensorRow, tensor: Tensor, device: torch.device) -> Tensor:
        got = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.device.type
        if got != (row.shape, row.dtype, device.type):
            raise EngineError(
                f"input {row.name!r} is {got[1]}{[*got[0]]} on {got[2]}; engine {self._row.name!r} "
                f"takes {row.dtype}{[*row.shape]} on {device}."
            )
        return tensor

    def _bind(self, row: TensorRow, tensor: Tensor) -> None:
        if not self._context.set_tensor_address(row.name, tensor.data_ptr()):
            raise EngineError(f"engine {self._row.name!r} refuses {row.name!r}: {_last(self._log)}")

    def _run(self) -> None:
        if not self._context.execute_async_v3(_stream()):
            raise EngineError(f"engine {self._row.name!r} did not run: {_last(self._log)}")
        if self._kernels is not None:
            self._kernels.keep()


def _stream() -> int:
    return torch.cuda.current_stream().cuda_stream


def _stream_weights(engine: Any, name: str, budget_bytes: int) -> None:
    """Keep no more of an engine's weights on the GPU than a budget; all, where they are less."""
    budget = min(budget_bytes, engine.streamable_weights_size)
    engine.weight_streaming_budget_v2 = budget
    if engine.weight_streaming_budget_v2 != budget:
        raise EngineError(
            f"engine {name!r} does not stream its weights within {budget_bytes} bytes of the GPU's "
            "memory; build it with setting weight_streaming=yes, or leave streaming_budget_mib out."
        )


def _context(trt: Any, engine: Any, kernels: KernelCache, cuda_graphs: bool) -> Any:
    """TensorRT-RTX records CUDA graphs by itself, where it is told to, and keeps its kernels."""
    config = engine.create_runtime_config()
    kernels.give_to(config)
    if cuda_graphs:
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return engine.create_execution_context(config)


def _check(trt: Any, engine: Any, row: EngineRow) -> None:
    """Refuse an engine that takes or gives anything else than its row says."""
    found: dict[str, tuple[bool, tuple[int, ...], Any]] = {}
    for at in range(engine.num_io_tensors):
        name = engine.get_tensor_name(at)
        taken = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        dtype = _TYPES.get(engine.get_tensor_dtype(name).name)
        found[name] = taken, tuple(engine.get_tensor_shape(name)), dtype
    wanted = {
        each.name: (taken, each.shape, getattr(torch, each.dtype))
        for taken, rows in ((True, row.takes), (False, row.gives))
        for each in rows
    }
    # An input that nothing reads is no input of the engine.
    for name in sorted({*found, *(each.name for each in row.gives)}):
        if found.get(name) != wanted.get(name):
            raise EngineError(
                f"engine {row.name!r} has {name!r} as {found.get(name)}; its row says "
                f"{wanted.get(name)}. Build the bundle again."
            )


def _last(log: Any) -> str:
    return log.said[-1] if log.said else "the library gave no reason"
