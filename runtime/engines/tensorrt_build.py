"""An ONNX graph becomes an engine of TensorRT or TensorRT-RTX.

TensorRT-RTX builds for a GPU that is not in this machine, and needs none; TensorRT builds on the
GPU that will run the engine. Both read the types from the graph (strongly typed), so the precision
is what the graph says: a norm written in float32 stays in float32.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from turbo4d.runtime.errors import EngineError, OptionError
from turbo4d.runtime.log import say

from .kernel_cache import written
from .tensorrt import TensorRTSession, library, log_of, open_plan
from .weight_inputs import weights_as_inputs

if TYPE_CHECKING:
    from turbo4d.runtime.bundle.bundle_files import Bundle
    from turbo4d.runtime.bundle.manifest import EngineRow
    from turbo4d.runtime.bundle.weights import BundleWeights


@dataclass(frozen=True)
class BuildSettings:
    """How an engine is built.

    Args:
        target: "tensorrt" or "tensorrt-rtx".
        device: compute capability to build for, such as "sm89"; "current" for this GPU's.
        weights: "inputs": the engine takes weights from outside, so all engines share them;
            "embedded": each holds a copy.
        refit: whether embedded weights may be exchanged later; needs a GPU.
        tf32: whether products of float32 may round to ten bits of mantissa.
        weight_streaming: whether embedded weights may stay on the host.
        timing_cache: a file with what kernels took, read and written; None for none. TensorRT-RTX
            times nothing when it builds, and refuses one.
    """

    target: str
    device: str = "current"
    weights: str = "inputs"
    refit: bool = False
    tf32: bool = False
    weight_streaming: bool = False
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        if self.weights not in ("embedded", "inputs"):
            raise OptionError(f"weights is {self.weights!r}; wanted 'embedded' or 'inputs'.")
        if self.weights == "inputs" and (self.refit or self.weight_streaming):
            raise OptionError(
                "refit and weight streaming are of weights within an engine; with weights as "
                "inputs, call it with other weights, or set weights='embedded'."
            )


@dataclass(frozen=True)
class EnginePlan:
    """An engine, serialised.

    Args:
        data: its bytes.
        layers: of the network, before the library fuses them.
        nodes: of the graph, all of which the library took.
        inputs: names, in order; weights last.
        outputs: names, in order.
        seconds: that it took.
    """

    data: bytes
    layers: int
    nodes: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class RefusedNode:
    """A node that the library does not take.

    Args:
        kind: the ONNX operator.
        name: of the node, which may say the module it comes from.
        results: names of what it and the nodes after it give, in order.
        reason: in the library's words.
    """

    kind: str
    name: str
    results: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        """Where it is, and why."""
        where = f" {self.name!r}" if self.name else ""
        which = f", which gives {self.results[0]!r}" if self.results else ""
        return f"{self.kind}{where}{which}: {self.reason}"


class RefusedGraphError(EngineError):
    """A graph that the library does not take; `nodes` are those it named."""

    def __init__(self, target: str, nodes: tuple[RefusedNode, ...], text: str = "") -> None:
        self.nodes = nodes
        super().__init__(f"{target} does not take {'; '.join(map(str, nodes)) or text}.")


def devices(target: str) -> tuple[str, ...]:
    """What a target builds for here, sorted; TensorRT for this machine's GPU alone.

    Raises:
        EngineError: its library is not installed.
    """
    trt = library(target)
    if not hasattr(trt, "ComputeCapability"):
        return (this_gpu(),) if _gpu() else ()
    offered = {name.lower() for name in trt.ComputeCapability.__members__} - {"none", "current"}
    return tuple(sorted(offered, key=lambda name: int(name[2:])))


def this_gpu() -> str:
    """Compute capability of torch's current GPU, such as "sm89"."""
    return "sm{}{}".format(*torch.cuda.get_device_capability())


def timing_cache_path(target: str, device: str) -> Path | None:
    """Where TensorRT keeps what kernels took, one file for each device; None for TensorRT-RTX."""
    if target != "tensorrt":
        return None
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "turbo4d" / "timing" / f"{target}-{device}.cache"


def why_not_built(settings: BuildSettings) -> str | None:
    """Why engines cannot be built here so; None where they can.

    Raises:
        EngineError: its library is not installed.
    """
    offered = devices(settings.target)
    elsewhere = settings.target == "tensorrt-rtx" and settings.device != "current"
    if settings.target == "tensorrt-rtx" and not elsewhere and not _gpu():
        return (
            "torch sees no GPU here to build for; name the one that engines are for, such as "
            "'tensorrt-rtx:sm89'"
        )
    if not elsewhere and not _gpu():
        return f"target {settings.target!r} builds on the GPU itself, and torch sees none here"
    if settings.refit and not _gpu():
        return "an engine that can be refitted is built on a GPU, and torch sees none here"
    if settings.device not in ("current", *offered):
        return f"{settings.target} builds for {', '.join(offered)}, not for {settings.device!r}"
    return None


def build(graph: Path, settings: BuildSettings) -> EnginePlan:
    """Build an engine.

    Args:
        graph: an ONNX file, its weights beside it; they are read only to be embedded.
        settings: what for and how.

    Raises:
        EngineError: the library is not installed, cannot build this here, or fails.
        RefusedGraphError: it does not take the graph.
    """
    started = time.perf_counter()
    if (reason := why_not_built(settings)) is not None:
        raise EngineError(f"{reason}.")
    trt, log = library(settings.target), log_of(settings.target)
    log.said.clear()
    builder = trt.Builder(log)
    network = builder.create_network(_network_flags(trt))
    model = _parsed(trt, network, graph, settings)
    config = builder.create_builder_config()
    _configure(trt, config, settings)
    cache = _timing_cache(config, settings.timing_cache)
    data = builder.build_serialized_network(network, config)
    if data is None:
        said = log.said[-1] if log.said else "it gave no reason"
        raise EngineError(f"{settings.target} built no engine of {graph.name}: {said}")
    if cache is not None and settings.timing_cache is not None:
        written(settings.timing_cache, bytes(cache.serialize()))
    return EnginePlan(
        data=bytes(data),
        layers=network.num_layers,
        nodes=len(model.graph.node),
        inputs=tuple(network.get_input(at).name for at in range(network.num_inputs)),
        outputs=tuple(network.get_output(at).name for at in range(network.num_outputs)),
        seconds=time.perf_counter() - started,
    )


def rebuild_engine(bundle: Bundle, row: EngineRow, weights: BundleWeights) -> TensorRTSession:
    """Build an engine of a bundle anew, for this GPU, and open it.

    Args:
        bundle: on a GPU; its files have been checked.
        row: of the engine, which has a graph.
        weights: of the bundle.

    Raises:
        EngineError: the library is not there, or does not build or open it.
    """
    if not row.graph:
        raise EngineError(f"the bundle keeps no graph of engine {row.name!r}.")
    target = bundle.manifest.target
    cache = timing_cache_path(target.name, this_gpu())
    outside = "inputs" if any(taken.kind == "weight" for taken in row.takes) else "embedded"
    settings = BuildSettings(
        target.name,
        weights=outside,
        tf32=target.settings.get("tf32") == "yes",
        weight_streaming=target.settings.get("weight_streaming") == "yes",
        timing_cache=cache,
    )
    say(1, f"building engine {row.name!r} anew with {target.name}, which may take minutes")
    return open_plan(bundle, row, weights, build(bundle.path(row.graph), settings).data)


def _gpu() -> bool:
    return torch.cuda.is_available()


def _network_flags(trt: Any) -> int:
    # Releases that know nothing but strongly typed networks may drop the flag.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parsed(trt: Any, network: Any, graph: Path, settings: BuildSettings) -> Any:
    """Fill a network from a file; gives the graph as it was parsed."""
    model = weights_as_inputs(graph, keep=settings.weights == "embedded")
    parser = trt.OnnxParser(network, log_of(settings.target))
    # The path tells where embedded weights lie.
    if not parser.parse(model.SerializeToString(), str(graph)):
        errors = [parser.get_error(at) for at in range(parser.num_errors)]
        nodes = tuple(_refused(model.graph.node, error) for error in errors)
        raise RefusedGraphError(settings.target, nodes, f"{graph.name}: no reason given")
    return model


def _refused(nodes: Any, error: Any) -> RefusedNode:
    at = error.node()
    node = nodes[at] if 0 <= at < len(nodes) else None
    return RefusedNode(
        kind=error.node_operator() or (node.op_type if node is not None else "the graph"),
        name=error.node_name() or (node.name if node is not None else ""),
        results=() if node is None else tuple(one.output[0] for one in nodes[at:] if one.output),
        reason=error.desc().strip().rstrip("."),
    )


def _configure(trt: Any, config: Any, settings: BuildSettings) -> None:
    wanted = {"REFIT": settings.refit, "WEIGHT_STREAMING": settings.weight_streaming}
    for name in (name for name, on in wanted.items() if on):
        flag = getattr(trt.BuilderFlag, name, None)
        if flag is None:
            raise EngineError(f"{settings.target} {trt.__version__} has no option {name}.")
        config.set_flag(flag)
    if not settings.tf32 and hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)
    if settings.device != "current" and hasattr(trt, "ComputeCapability"):
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, settings.device.upper()), 0)


def _timing_cache(config: Any, path: Path | None) -> Any:
    if path is None:
        return None
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    # One of another device or version would be refused here: it is then begun anew.
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache
