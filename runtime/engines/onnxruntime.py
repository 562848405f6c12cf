"""ONNX Runtime: the one file that imports it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from turbo4d.runtime.errors import Turbo4DError

_TYPES = {
    "tensor(float)": torch.float32, "tensor(double)": torch.float64, "tensor(bool)": torch.bool,
    "tensor(float16)": torch.float16, "tensor(int64)": torch.int64, "tensor(int32)": torch.int32,
}  # fmt: skip


@dataclass(frozen=True)
class Form:
    """What a graph takes or gives."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


class OnnxSession:
    """A graph on the CPU; tensors go in and come out without a copy.

    Args:
        path: of the graph, its weights beside it.
        threads: that one operator may use; 0 for as many as torch.
        settings: further entries of the session's configuration.

    Attributes:
        inputs: what it takes, in order.
        outputs: what it gives, in order.

    Raises:
        Turbo4DError: onnxruntime is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int = 0,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        try:
            import onnxruntime  # pyright: ignore[reportMissingTypeStubs]
        except ImportError as error:
            raise Turbo4DError(
                "ONNX files need the package onnxruntime; install turbo4d[cpu]."
            ) from error
        library: Any = onnxruntime
        options = library.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        for key, value in (settings or {}).items():
            options.add_session_config_entry(key, value)
        self._session: Any = library.InferenceSession(
            str(Path(path)), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = tuple(_forms(self._session.get_inputs()))
        self.outputs = tuple(_forms(self._session.get_outputs()))

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor]:
        """Run it.

        Args:
            given: one for each of `inputs`.

        Raises:
            Turbo4DError: one of another shape or dtype, or on another device.
        """
        binding = self._session.io_binding()
        kept: list[Tensor] = []
        for form, tensor in zip(self.inputs, given, strict=True):
            got = tuple(tensor.shape), tensor.dtype, tensor.device.type
            if got != (form.shape, form.dtype, "cpu"):
                raise Turbo4DError(
                    f"input {form.name!r} is {got[1]}{[*got[0]]} on {got[2]}; the graph takes "
                    f"{form.dtype}{[*form.shape]} on cpu."
                )
            kept.append(tensor.detach().contiguous())
            _bind(binding.bind_input, form, kept[-1])
        results = [torch.empty(form.shape, dtype=form.dtype) for form in self.outputs]
        for form, result in zip(self.outputs, results, strict=True):
            _bind(binding.bind_output, form, result)
        self._session.run_with_iobinding(binding)
        return results


def _forms(described: Iterable[Any]) -> Iterator[Form]:
    for each in described:
        yield Form(each.name, tuple(each.shape), _TYPES[each.type])


def _bind(bind: Any, form: Form, tensor: Tensor) -> None:
    kind = torch.empty(0, dtype=form.dtype).numpy().dtype.type
    bind(form.name, "cpu", 0, kind, form.shape, tensor.data_ptr())
