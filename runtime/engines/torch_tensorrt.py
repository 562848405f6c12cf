"""Torch-TensorRT: the one file that imports it; what it builds is an engine of TensorRT's.

Its converters stand in the place of TensorRT's reader of ONNX. Opening an engine needs TensorRT
alone, no code of Torch-TensorRT's. Nothing here has been run: no machine of ours with a GPU had the
library.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from turbo4d.runtime.bundle.bundle_files import Bundle
from turbo4d.runtime.bundle.manifest import EngineRow
from turbo4d.runtime.bundle.weights import BundleWeights
from turbo4d.runtime.engines.tensorrt import TensorRTSession
from turbo4d.runtime.errors import EngineError


def why_not_here() -> str | None:
    """Why nothing can be built here, as a clause; None where it can."""
    if importlib.util.find_spec("torch_tensorrt") is None:
        return "the package torch-tensorrt is not installed; install turbo4d[gpu]"
    if torch.version.cuda is None:
        return "torch-tensorrt does not import beside a torch without CUDA"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device, and it builds on the GPU itself"
    return None


def build(program: ExportedProgram, inputs: Sequence[Tensor]) -> bytes:
    """The serialised engine of a program whose every operator becomes TensorRT's.

    Args:
        program: exported, on the GPU.
        inputs: one for each of its own.

    Raises:
        EngineError: the library is not here, or cannot convert the whole program.
    """
    if (reason := why_not_here()) is not None:
        raise EngineError(f"{reason}.")
    import torch_tensorrt  # pyright: ignore[reportMissingImports]

    library: Any = torch_tensorrt
    convert = library.dynamo.convert_exported_program_to_serialized_trt_engine
    try:
        # Its cache of engines leaves arguments of operators out of the key, so it stays off.
        return bytes(
            convert(program, arg_inputs=[*inputs], cache_built_engines=False,
                    reuse_cached_engines=False)
        )  # fmt: skip
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), "no reason")
        raise EngineError(
            f"torch-tensorrt cannot convert the graph: {first.strip()}; build for tensorrt."
        ) from error


def open_engine(
    bundle: Bundle, row: EngineRow, weights: BundleWeights
) -> Callable[[Sequence[Tensor]], Sequence[Tensor]]:
    """Open an engine of a bundle with TensorRT.

    Args:
        bundle: on a GPU; its files have been checked.
        row: of the engine.
        weights: of the bundle.

    Raises:
        EngineError: TensorRT is not there, or does not open it.
    """
    device = torch.device(bundle.device)
    held = {
        each.source: weights.on(each.source, device) for each in row.takes if each.kind == "weight"
    }
    plan = bundle.path(row.engine).read_bytes()
    return TensorRTSession("tensorrt", plan, row, held, device=bundle.device)
