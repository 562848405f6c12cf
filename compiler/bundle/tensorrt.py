"""tensorrt, tensorrt-rtx: engines of NVIDIA's libraries, the second for GPUs not in this machine.

The engines take weights as inputs: one copy serves all variants, on disk and on the GPU, and an
engine holds nothing but kernels. Those repeat, layer after layer, so the file is packed to a tenth;
it is unpacked when it is opened. The graphs stay in the bundle, so that what cannot open an engine
builds it anew. Nothing is run: the error of these engines is that of the same graphs under
ONNX Runtime, as far as anything was measured.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata

import torch
from turbo4d.compiler.bundle.targets import BuildRequest, Built, refuse_settings
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.lower.onnx_rules import place_of, remedy_of
from turbo4d.runtime.bundle.manifest import TensorRow
from turbo4d.runtime.engines.tensorrt import MODULES, PACKED, why_not_computed
from turbo4d.runtime.engines.tensorrt_build import (
    BuildSettings,
    EnginePlan,
    RefusedGraphError,
    RefusedNode,
    build,
    this_gpu,
    timing_cache_path,
    why_not_built,
)
from turbo4d.runtime.errors import EngineError, OptionError

SETTINGS = {
    "weights": "'inputs', so that all engines share one copy, or 'embedded' in each",
    "refit": "'yes' where embedded weights are to be exchanged later; needs a GPU",
    "tf32": "'yes' where products of float32 may round to ten bits of mantissa",
    "weight_streaming": "'yes' where embedded weights may stay on the host",
    "streaming_budget_mib": "how much of an engine's streamed weights lies on the GPU; all else",
    "cuda_graphs": "'yes' where calls are to be recorded as CUDA graphs",
}
_OTHERWISE = "write it otherwise in the model, or build for target 'onnxruntime'"
_LEVEL = 6
_SPELLED = re.compile(r"sm\d{2,3}|current")


class TensorRTTarget:
    """Builds with TensorRT-RTX for a named GPU, with TensorRT for the one in this machine.

    Args:
        name: "tensorrt" or "tensorrt-rtx".
        device: compute capability such as "sm89"; "" or "current" for this machine's GPU.
        settings: of `SETTINGS`.

    Raises:
        OptionError: a device or a setting that it has not.
    """

    suffix = f".engine{PACKED}"
    keeps_graphs = True

    def __init__(self, name: str, device: str, settings: Mapping[str, str]) -> None:
        refuse_settings(name, settings, SETTINGS)
        if device and not _SPELLED.fullmatch(device):
            raise OptionError(
                f"target '{name}:{device}' names no GPU; write its compute capability, "
                f"such as '{name}:sm89'."
            )
        self.name = name
        self.device = device or "current"
        self._settings = {"weights": "inputs", **settings}
        self._build = BuildSettings(
            target=name,
            device=self.device,
            weights=self._settings["weights"],
            refit=_yes(name, settings, "refit"),
            tf32=_yes(name, settings, "tf32"),
            weight_streaming=_yes(name, settings, "weight_streaming"),
            timing_cache=timing_cache_path(name, self.device),
        )
        _yes(name, settings, "cuda_graphs")
        _budget(name, settings)
        if self.device == "current" and not self.reasons():
            self.device = this_gpu()

    def reasons(self) -> tuple[str, ...]:
        """The library that is missing, the GPU that is, or that it does not build for this one."""
        try:
            reason = why_not_built(self._build)
        except EngineError as error:
            reason = str(error).rstrip(".")
        return () if reason is None else (reason,)

    def why_not_in(self, dtypes: Collection[torch.dtype]) -> str | None:
        """bfloat16, on a GPU that is too old for it."""
        return why_not_computed(self.device, dtypes)

    def settings(self) -> Mapping[str, str]:
        """Where the weights are, and what was asked for."""
        return self._settings

    def versions(self) -> Mapping[str, str]:
        """Of the library."""
        name = MODULES[self.name].replace("_", "-")
        try:
            return {name: metadata.version(name)}
        except metadata.PackageNotFoundError:
            return {}

    def build(self, request: BuildRequest) -> Built:
        """Build an engine; it is not run.

        Raises:
            LowerError: the library is not there, takes an operator not, or fails.
        """
        try:
            plan = build(request.graph, self._build)
        except RefusedGraphError as error:
            raise LowerError(refused_text(self.name, request, error.nodes)) from error
        except EngineError as error:
            raise LowerError(f"variant {request.name!r}: {error}") from error
        path = request.scratch / f"engine{self.suffix}"
        path.write_bytes(zlib.compress(plan.data, _LEVEL))
        return Built(
            engine=path,
            takes=(*request.takes, *weight_rows(request, plan.inputs)),
            gives=request.gives,
            executed=False,
            layers=plan.layers,
            facts=facts_of(plan),
        )


def weight_rows(request: BuildRequest, inputs: tuple[str, ...]) -> tuple[TensorRow, ...]:
    """What an engine takes of the model's weights, in its own order."""
    return tuple(
        TensorRow(name, "weight", held.name, held.shape, held.dtype)
        for name in inputs
        if (held := request.held.get(name)) is not None
    )


def facts_of(plan: EnginePlan) -> dict[str, int]:
    """Layer coverage; a graph is taken whole or refused, so what was built covers all nodes."""
    return {
        "graph_nodes": plan.nodes,
        "nodes_taken": plan.nodes,
        "network_layers": plan.layers,
        "unpacked_bytes": len(plan.data),
    }


def refused_text(target: str, request: BuildRequest, nodes: Sequence[RefusedNode]) -> str:
    """What a target does not take: operator, where it comes from, and what could remove it."""
    said = "; ".join(_told(request, node) for node in nodes)
    return f"variant {request.name!r} cannot be built by {target}: {said or 'no reason given'}."


def _told(request: BuildRequest, refused: RefusedNode) -> str:
    names = {node.name: node for node in request.module.graph.nodes}
    # What a call becomes ends with the node that bears its name.
    node = next((names[each] for each in refused.results if each in names), None)
    if node is None:
        return str(refused)
    return f"{refused.kind}, of {node.target} at {place_of(node)}: {refused.reason}; " + (
        remedy_of(node, _OTHERWISE)
    )


def _budget(name: str, settings: Mapping[str, str]) -> None:
    """Refuse a budget that is no number, or of weights that no engine streams."""
    budget = settings.get("streaming_budget_mib")
    if budget is None:
        return
    if not budget.isdecimal():
        raise OptionError(
            f"target {name!r}: setting streaming_budget_mib is {budget!r}; wanted a whole number."
        )
    if settings.get("weight_streaming") != "yes":
        raise OptionError(
            f"target {name!r}: setting streaming_budget_mib is of streamed weights; set "
            "weight_streaming=yes and weights=embedded, or leave it out."
        )


def _yes(name: str, settings: Mapping[str, str], key: str) -> bool:
    said = settings.get(key, "no")
    if said not in ("no", "yes"):
        raise OptionError(f"target {name!r}: setting {key} is {said!r}; wanted 'no' or 'yes'.")
    return said == "yes"
