"""ONNX Runtime: the one file that imports it.

A session keeps its weights in one of two ways: "packed", laid out anew for its kernels, a copy for
each session; or "shared", read where they lie by all sessions, which costs it that layout. What is
meant for one provider runs there or not at all: nothing falls back unsaid.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from turbo4d.runtime.bundle.dtypes import dtype_named
from turbo4d.runtime.errors import EngineError, Turbo4DError

if TYPE_CHECKING:
    from turbo4d.runtime.bundle.bound_engine import EngineCall
    from turbo4d.runtime.bundle.bundle_files import Bundle
    from turbo4d.runtime.bundle.manifest import EngineRow, TensorRow
    from turbo4d.runtime.bundle.weights import BundleWeights

# What the library calls a type, and its number in the standard.
_NAMED = {
    "tensor(bfloat16)": torch.bfloat16, "tensor(bool)": torch.bool, "tensor(double)": torch.float64,
    "tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(int16)": torch.int16,
    "tensor(int32)": torch.int32, "tensor(int64)": torch.int64, "tensor(int8)": torch.int8,
    "tensor(uint8)": torch.uint8,
}  # fmt: skip
_NUMBERS = {
    torch.float32: 1, torch.uint8: 2, torch.int8: 3, torch.int16: 5, torch.int32: 6,
    torch.int64: 7, torch.bool: 9, torch.float16: 10, torch.float64: 11, torch.bfloat16: 16,
}  # fmt: skip
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
}
"""By the device that engines are for; all but "cpu" are on a GPU, where they take CUDA tensors."""
WEIGHTS = ("packed", "shared")


@dataclass(frozen=True)
class Form:
    """What a graph takes or gives."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


class OnnxSession:
    """A graph, opened; tensors go in and come out without a copy.

    Args:
        path: of the graph, its weights beside it.
        threads: that one operator may use; 0 for as many as torch.
        settings: further entries of the session's configuration.
        device: one of `PROVIDERS`.
        weights: by name of an initialiser a tensor in the CPU's memory that stands for it; the
            session reads it where it lies, and copies none of it but to a GPU.

    Attributes:
        inputs: what it takes, in order.
        outputs: what it gives, in order.

    Raises:
        Turbo4DError: onnxruntime is not installed.
        EngineError: it lacks the device's provider, or does not take the graph.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int = 0,
        settings: Mapping[str, str] | None = None,
        device: str = "cpu",
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        library = _library()
        if (reason := why_not_here(device)) is not None:
            raise EngineError(f"ONNX Runtime cannot run {Path(path).name!r}: {reason}.")
        options = library.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        for key, value in {**_settings(device, weights), **(settings or {})}.items():
            options.add_session_config_entry(key, value)
        if weights is not None:  # the level beyond lays the weights of convolutions out anew
            level = library.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            options.graph_optimization_level = level
        self._held = [*_shared(library, options, weights or {})]
        self._place = "cpu" if device == "cpu" else "cuda"
        self._refusals = _refusals(library)
        try:
            self._session: Any = library.InferenceSession(
                str(Path(path)), options, providers=[PROVIDERS[device]], enable_fallback=0
            )
        except self._refusals as error:
            raise EngineError(
                f"ONNX Runtime {library.__version__} does not take {Path(path).name!r} on "
                f"{device}: {_first_line(error)}"
            ) from error
        self.inputs = tuple(_forms(self._session.get_inputs()))
        self.outputs = tuple(_forms(self._session.get_outputs()))

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor]:
        """Run it.

        Args:
            given: one for each of `inputs`.

        Raises:
            Turbo4DError: one of another shape or dtype, or on another device.
            EngineError: the library fails.
        """
        binding = self._session.io_binding()
        kept: list[Tensor] = []
        for form, tensor in zip(self.inputs, given, strict=True):
            got = tuple(tensor.shape), tensor.dtype, tensor.device.type
            if got != (form.shape, form.dtype, self._place):
                raise Turbo4DError(
                    f"input {form.name!r} is {got[1]}{[*got[0]]} on {got[2]}; the graph takes "
                    f"{form.dtype}{[*form.shape]} on {self._place}."
                )
            kept.append(tensor.detach().contiguous())
            self._bind(binding.bind_input, form, kept[-1])
        device = kept[0].device if kept and self._place == "cuda" else torch.device(self._place)
        results = [
            torch.empty(form.shape, dtype=form.dtype, device=device) for form in self.outputs
        ]
        for form, result in zip(self.outputs, results, strict=True):
            self._bind(binding.bind_output, form, result)
        if self._place == "cuda":  # the library has a stream of its own
            torch.cuda.current_stream(device).synchronize()
        try:
            self._session.run_with_iobinding(binding)
        except self._refusals as error:
            raise EngineError(f"ONNX Runtime failed: {_first_line(error)}") from error
        return results

    def _bind(self, bind: Any, form: Form, tensor: Tensor) -> None:
        at = tensor.device.index or 0
        bind(form.name, self._place, at, _NUMBERS[form.dtype], form.shape, tensor.data_ptr())


def open_graph(bundle: Bundle, row: EngineRow, weights: BundleWeights) -> EngineCall:
    """Opens the graph of a bundle's engine.

    Weights that the engine wants from outside are read where they are mapped; else the session
    reads its own from their file.

    Args:
        bundle: on whose device it is to run.
        row: of the engine.
        weights: of the bundle.

    Raises:
        EngineError: the library or its provider is not here, or does not take the graph.
    """
    target = bundle.manifest.target
    device = "cuda" if bundle.device.startswith("cuda") else "cpu"
    if device == "cuda" and target.name == "onnxruntime":
        device = target.device
    dtypes = {dtype_named(each.dtype) for each in (*row.takes, *row.gives)}
    if (reason := why_not_computed(device, dtypes)) is not None:
        raise EngineError(f"{reason}.")
    shared = {each.name: weights[each.source] for each in row.takes if each.kind == "weight"}
    session = OnnxSession(bundle.path(row.graph), device=device, weights=shared or None)
    places = {each.name: at for at, each in enumerate(_from_call(row))}
    order = [places.get(form.name, -1) for form in session.inputs]
    if sorted(order) != [*range(len(places))]:
        raise EngineError(
            f"graph {row.graph!r} takes {[form.name for form in session.inputs]}; the manifest "
            f"says {sorted(places)}. Build the bundle anew."
        )
    given = [each.name for each in row.gives]
    if [form.name for form in session.outputs] != given:
        raise EngineError(
            f"graph {row.graph!r} gives {[form.name for form in session.outputs]}; the manifest "
            f"says {given}. Build the bundle anew."
        )
    return lambda tensors: session([tensors[at] for at in order])


def _from_call(row: EngineRow) -> list[TensorRow]:
    return [each for each in row.takes if each.kind != "weight"]


def why_not_here(device: str) -> str | None:
    """Why ONNX Runtime cannot run on a device here, as a clause; None where it can."""
    if device not in PROVIDERS:
        return f"device {device!r} is unknown to it; there are {', '.join(sorted(PROVIDERS))}"
    if importlib.util.find_spec("onnxruntime") is None:
        return "the package onnxruntime is not installed; install turbo4d[cpu]"
    there = _library().get_available_providers()
    if PROVIDERS[device] not in there:
        return f"this build of ONNX Runtime has no {PROVIDERS[device]}, only {', '.join(there)}"
    if device != "cpu" and not torch.cuda.is_available():
        return "torch sees no CUDA device"
    return None


def why_not_computed(device: str, dtypes: Iterable[torch.dtype]) -> str | None:
    """Why it does not compute in some dtypes on a device, as a clause; None where it does.

    Args:
        device: one of `PROVIDERS`.
        dtypes: of a graph's values.
    """
    if device != "cpu" or torch.bfloat16 not in {*dtypes}:
        return None
    # Version 1.31 counts two kernels (its issue 28768), and none of a product.
    return "ONNX Runtime has no CPU kernels for bfloat16"


def _library() -> Any:
    try:
        import onnxruntime  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        raise Turbo4DError(
            "ONNX files need the package onnxruntime; install turbo4d[cpu]."
        ) from error
    return onnxruntime


def _settings(device: str, weights: Mapping[str, Tensor] | None) -> dict[str, str]:
    settings = {} if weights is None else {"session.disable_prepacking": "1"}
    if device != "cpu":
        settings["session.disable_cpu_ep_fallback"] = "1"
    return settings


def _shared(library: Any, options: Any, weights: Mapping[str, Tensor]) -> Iterator[Any]:
    """Hands weights to a session to be; what it gives must outlive the session."""
    for name, value in weights.items():
        plain = value.detach().cpu().contiguous().view(_PLAIN[value.element_size()]).numpy()
        made = library.OrtValue.ortvalue_from_numpy_with_onnx_type
        held = made(plain, _NUMBERS[value.dtype])
        options.add_initializer(name, held)
        yield held, plain


_PLAIN = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _refusals(library: Any) -> tuple[type[Exception], ...]:
    """What the library raises where it does not take a graph."""
    state = library.capi.onnxruntime_pybind11_state
    names = ("EPFail", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf",
             "NoSuchFile", "NotImplemented", "RuntimeException")  # fmt: skip
    return (*(getattr(state, name) for name in names), RuntimeError, ValueError)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason")


def _forms(described: Iterable[Any]) -> Iterator[Form]:
    for each in described:
        yield Form(each.name, tuple(each.shape), _NAMED[each.type])
