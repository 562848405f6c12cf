"""aot-inductor: each graph compiled by Inductor to native code in a package, weights as its inputs.

A package holds code alone: the bundle's one weight file serves all of them. What is compiled is the
graph that the ONNX file was written from, so that ONNX Runtime can stand in for a package that may
not be loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor
from turbo4d.compiler.bundle.example import error_of
from turbo4d.compiler.bundle.targets import BuildRequest, Built, refuse_settings
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.lower.compat import compile_ahead, inductor_lacks
from turbo4d.runtime.bundle.manifest import TensorRow
from turbo4d.runtime.engines.aot_inductor import AotInductorSession, code_for
from turbo4d.runtime.errors import OptionError

_DEVICES = ("cpu", "cuda")


class AotInductorTarget:
    """Packages for this machine's processor, or its GPU.

    Args:
        name: "aot-inductor".
        device: "cpu", "cuda", or "" for "cpu".
        settings: none are known.

    Raises:
        OptionError: another device, or a setting.
    """

    suffix = ".pt2"
    keeps_graphs = True

    def __init__(self, name: str, device: str, settings: Mapping[str, str]) -> None:
        self.name = name
        self.device = device or "cpu"
        if self.device not in _DEVICES:
            raise OptionError(
                f"target {name}:{device} is unknown; choose "
                f"{', '.join(repr(f'{name}:{known}') for known in _DEVICES)}."
            )
        refuse_settings(name, settings, {})

    def reasons(self) -> tuple[str, ...]:
        """What Inductor misses here."""
        if self.device == "cuda" and not torch.cuda.is_available():
            return ("torch sees no CUDA device",)
        lacking = inductor_lacks(torch.device(self.device))
        return () if lacking is None else (lacking,)

    def why_not_in(self, dtypes: Collection[torch.dtype]) -> str | None:
        """Nothing: what torch computes in, it compiles."""
        return None

    def settings(self) -> Mapping[str, str]:
        """The instruction set that the code is for."""
        return {"code": code_for(self.device)}

    def versions(self) -> Mapping[str, str]:
        """Torch, whose library a package is linked with."""
        return {"torch": torch.__version__}

    def build(self, request: BuildRequest) -> Built:
        """Compile a graph, open the package and run it once on the recorded call.

        Raises:
            LowerError: Inductor cannot compile the graph.
        """
        path = request.scratch / f"engine{self.suffix}"
        places = request.module.graph.find_nodes(op="placeholder")
        named = {row.name: row for row in request.takes}
        given = dict(zip(named, request.given, strict=True)) if request.given else {}
        inputs = [
            given[node.name] if node.name in given else _standing_for(node.meta["val"], value)
            for node in places
            for value in (request.values.get(node.name),)
        ]
        calls = sum(node.op == "call_function" for node in request.module.graph.nodes)
        request.say(f"{request.name}: Inductor compiles its {calls} calls")
        try:
            compile_ahead(request.module, inputs, path)
        except RuntimeError as error:
            first = next((line for line in str(error).splitlines() if line.strip()), "no reason")
            raise LowerError(
                f"Inductor cannot compile {request.name!r}: {first}; build for onnxruntime."
            ) from error
        takes = tuple(
            named[node.name] if node.name in named else _weight_row(request, node.name)
            for node in places
        )
        error = None
        if request.wanted:
            session = AotInductorSession(path, self.device)
            error = error_of(session(inputs), request.wanted)
        return Built(path, takes, request.gives, executed=bool(request.wanted), error=error)


def _standing_for(like: Tensor, value: Tensor | None) -> Tensor:
    return torch.zeros(like.shape, dtype=like.dtype, device=like.device) if value is None else value


def _weight_row(request: BuildRequest, name: str) -> TensorRow:
    held = request.held[name]
    return TensorRow(name, "weight", held.name, held.shape, held.dtype)
