"""onnxruntime: a variant as an ONNX graph with its weights, run on the CPU by ONNX Runtime.

In float16 the library computes in float32 between casts of its own, so it is right and not fast; in
bfloat16 it computes nothing (onnxruntime 1.31: issue 28768 of its repository counts two kernels).

The weights of all graphs lie once in one file, but every session reads its own copy: the library
packs them for its kernels. With option `conditional` there is one session. A graph is written when
its engine is first called, since the weights come with the call, and written again where they
changed since.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from turbo4d.runtime.compat import versions_of
from turbo4d.runtime.engines.onnxruntime import OnnxSession

from .eager import picker
from .onnx_export import OnnxFile, dtypes_of, reasons_against, write_onnx
from .onnx_weights import WeightFile

if TYPE_CHECKING:
    from turbo4d.compiler.specialise import Variant
    from turbo4d.runtime.plan import VariantKey

_COMPUTED = (torch.float32, torch.float16, torch.int64, torch.int32, torch.bool)
Stamp = tuple[tuple[int, int | None], ...]


class OnnxFolder:
    """Where graphs and their weights are written; removed with the last that holds it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="turbo4d-onnx-"))
        self.weights = WeightFile(self.path / "weights.bin")
        self.lock = threading.Lock()
        self._count = 0
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def fresh(self) -> Path:
        """A path for one more graph."""
        self._count += 1
        return self.path / f"graph_{self._count}.onnx"


class OnnxRuntimeEngine:
    """A variant, written and opened at the first call.

    Args:
        variant: whose module is left as it is.
        folder: to write to.

    Attributes:
        file: what was written; None before the first call.
    """

    def __init__(self, variant: Variant, folder: OnnxFolder) -> None:
        self.key: VariantKey = variant.key
        self.reads = variant.reads
        self.writes = variant.writes
        self.file: OnnxFile | None = None
        self._variant = variant
        self._folder = folder
        self._session: tuple[Stamp, OnnxSession] | None = None
        names = [node.name for node in variant.module.graph.find_nodes(op="placeholder")]
        named = list(zip(names, variant.arg_indices, strict=False))
        # A placeholder's first letter is its kind: weight, constant or input.
        self._held = [(name, at) for name, at in named if not name.startswith("i_")]
        self._pick_held = picker([at for _, at in self._held])
        self._pick = picker([at for name, at in named if name.startswith("i_")])
        self._pick_prologue = picker(variant.prologue_indices)

    def __call__(
        self, args: Sequence[Tensor], prologue: Sequence[Tensor], slots_in: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Run the graph.

        Raises:
            LowerError: onnx is not installed.
            Turbo4DError: a tensor of another dtype than the variant was made for.
        """
        session = self._open(self._pick_held(args))
        results = session((*self._pick(args), *self._pick_prologue(prologue), *slots_in))
        return results[: self._variant.outputs], results[self._variant.outputs :]

    def _open(self, held: Sequence[Tensor]) -> OnnxSession:
        stamp = _stamp(held)
        if self._session is not None and self._session[0] == stamp:
            return self._session[1]
        with self._folder.lock:
            if self._session is None or self._session[0] != stamp:
                named = dict(zip([name for name, _ in self._held], held, strict=True))
                folder = self._folder
                self.file = write_onnx(self._variant, named, folder.fresh(), folder.weights)
                self._session = stamp, OnnxSession(self.file.path)
            return self._session[1]


class OnnxRuntimeLowering:
    """Takes variants in float32 or float16 on the CPU whose operators have an ONNX form."""

    name = "onnxruntime"

    def __init__(self) -> None:
        self._folder: OnnxFolder | None = None

    def supports(self, variant: Variant) -> tuple[str, ...]:
        """What is not installed, the devices and dtypes that are not taken, and the operators."""
        reasons = [
            f"the package {name} is not installed; install turbo4d[cpu]"
            for name in ("onnx", "onnxruntime")
            if importlib.util.find_spec(name) is None
        ]
        given = [node.meta["val"] for node in variant.module.graph.find_nodes(op="placeholder")]
        devices = {value.device.type for value in given} - {"cpu"}
        dtypes = dtypes_of(variant.module) - {*_COMPUTED}
        reasons += [f"it runs on the CPU, not on {device}" for device in sorted(devices)]
        reasons += [
            f"it computes in float32 and float16, not in {dtype}"
            for dtype in sorted(map(str, dtypes))
        ]
        return (*reasons, *reasons_against(variant))

    def compile(self, variant: Variant) -> OnnxRuntimeEngine:
        """An engine that is written at its first call."""
        if self._folder is None:
            self._folder = OnnxFolder()
        return OnnxRuntimeEngine(variant, self._folder)


def _stamp(tensors: Sequence[Tensor]) -> Stamp:
    """Changes where a tensor is another one, or was written to."""
    versions = versions_of(tensors)
    return tuple(
        (tensor.data_ptr(), version) for tensor, version in zip(tensors, versions, strict=True)
    )
