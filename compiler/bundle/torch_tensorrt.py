"""torch-tensorrt: each graph by Torch-TensorRT's converters, whole, its weights inputs.

Built and run on a GPU machine alone, and not run yet on any. What it gives is an engine of
TensorRT's, so a serving process needs TensorRT and nothing of Torch-TensorRT.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib import metadata

import torch
from turbo4d.compiler.bundle.targets import BuildRequest, Built, refuse_settings
from turbo4d.compiler.compat import written
from turbo4d.compiler.errors import LowerError
from turbo4d.runtime.bundle.manifest import TensorRow
from turbo4d.runtime.engines.tensorrt import why_not_computed
from turbo4d.runtime.engines.torch_tensorrt import build, why_not_here
from turbo4d.runtime.errors import EngineError, OptionError

_DEVICES = ("", "cuda")


class TorchTensorRTTarget:
    """Engines for the GPU in this machine.

    Args:
        name: "torch-tensorrt".
        device: "cuda", or "" for it.
        settings: none are known.

    Raises:
        OptionError: another device, or a setting.
    """

    suffix = ".engine"
    keeps_graphs = True

    def __init__(self, name: str, device: str, settings: Mapping[str, str]) -> None:
        if device not in _DEVICES:
            raise OptionError(f"target '{name}:{device}' is unknown; choose '{name}:cuda'.")
        refuse_settings(name, settings, {})
        self.name = name
        self.device = "cuda"
        if torch.cuda.is_available():
            major, minor = torch.cuda.get_device_capability()
            self.device = f"sm{major}{minor}"

    def reasons(self) -> tuple[str, ...]:
        """The library or the GPU that is missing."""
        reason = why_not_here()
        return () if reason is None else (reason,)

    def why_not_in(self, dtypes: Collection[torch.dtype]) -> str | None:
        """As TensorRT."""
        return why_not_computed(self.device, dtypes)

    def settings(self) -> Mapping[str, str]:
        """None."""
        return {}

    def versions(self) -> Mapping[str, str]:
        """Of the library, and of TensorRT, which opens what it builds."""
        found: dict[str, str] = {}
        for name in ("torch-tensorrt", "tensorrt"):
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return found

    def build(self, request: BuildRequest) -> Built:
        """Convert a graph; the engine is not run.

        Raises:
            LowerError: an operator that no converter takes.
        """
        places = request.module.graph.find_nodes(op="placeholder")
        named = {row.name: row for row in request.takes}
        values = [node.meta["val"] for node in places]
        inputs = [torch.zeros(each.shape, dtype=each.dtype, device="cuda") for each in values]
        request.say(f"{request.name}: converting")
        try:
            with torch.no_grad():
                program = torch.export.export(written(request.module), tuple(inputs), strict=False)
            data = build(program, inputs)
        except EngineError as error:
            raise LowerError(f"variant {request.name!r}: {error}") from error
        path = request.scratch / f"engine{self.suffix}"
        path.write_bytes(data)
        takes = tuple(
            named[node.name] if node.name in named else _weight_row(request, node.name)
            for node in places
        )
        # The converters number what an engine gives.
        gives = tuple(replace(row, name=f"output{at}") for at, row in enumerate(request.gives))
        return Built(path, takes, gives, executed=False)


def _weight_row(request: BuildRequest, name: str) -> TensorRow:
    held = request.held[name]
    return TensorRow(name, "weight", held.name, held.shape, held.dtype)
