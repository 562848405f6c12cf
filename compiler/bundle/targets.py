"""targets: what a bundle can be built for, looked up by name.

A target turns one graph after another into engines. Each has a file of its own beside this one,
imported when it is asked for; what it needs of a vendor it asks of `runtime/engines/<vendor>.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, fx
from turbo4d.compiler.errors import LowerError
from turbo4d.runtime.bundle.manifest import Manifest, TensorRow, WeightRow
from turbo4d.runtime.errors import OptionError

from .fixed_shapes import OPEN_SETTINGS, open_text

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class BuildRequest:
    """One graph that an engine is wanted of.

    Args:
        name: of the engine: its variant's, "prologue" or "conditional".
        graph: the ONNX file; its weights lie in the same folder, as external data.
        weights: the file that holds them.
        held: the graph's initialisers that are weights or constants of the model: by their name in
            the graph, where they lie.
        takes: inputs of the graph in its order, without weights.
        gives: its outputs in its order.
        module: what the graph was written from; its placeholders are `held` and `takes`, by name,
            in an order of their own. To be read, not changed.
        values: by placeholder the tensors of `held`.
        given: for each of `takes` a tensor of a real call, empty where there is none to be had.
        wanted: for each of `gives` what torch gives for that, None where it is not known; empty
            likewise.
        scratch: an empty folder, removed when the engine is in the bundle.
        flops: of one call.
        say: told what is being done.
    """

    name: str
    graph: Path
    weights: Path
    held: Mapping[str, WeightRow]
    takes: tuple[TensorRow, ...]
    gives: tuple[TensorRow, ...]
    module: fx.GraphModule
    values: Mapping[str, Tensor]
    given: Sequence[Tensor]
    wanted: Sequence[Tensor | None]
    scratch: Path
    flops: int
    say: Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """What a target made of a graph.

    Args:
        engine: the file, in the request's scratch folder; None where the graph is what runs.
        takes: of the engine in its order, those weights included that it wants from outside.
        gives: of the engine in its order.
        executed: whether it ran here.
        layers: how many the engine has, None where that is not told.
        error: its results against the request's `wanted`, the largest |a - b| / |b| over them;
            None where it did not run or there was nothing to compare with.
        facts: what else is worth a report, as JSON takes it.
    """

    engine: Path | None
    takes: tuple[TensorRow, ...]
    gives: tuple[TensorRow, ...]
    executed: bool
    layers: int | None = None
    error: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


class TargetBuilder(Protocol):
    """Makes engines of one kind for one device.

    Attributes:
        name: "onnxruntime", "tensorrt-rtx", ...
        device: that engines are for: "cpu", "cuda", "sm89", ...
        suffix: of its engine files, with the dot.
        keeps_graphs: whether the ONNX graphs belong in the bundle, to run or to build anew from.
    """

    name: str
    device: str
    suffix: str
    keeps_graphs: bool

    def reasons(self) -> tuple[str, ...]:
        """Why it cannot build on this machine, each a clause; none where it can."""
        ...

    def why_not_in(self, dtypes: Collection[torch.dtype]) -> str | None:
        """Why its engines cannot compute in some of these dtypes, as a clause; None where they can.

        Args:
            dtypes: of the module's weights and inputs, then of all values of its graphs.
        """
        ...

    def settings(self) -> Mapping[str, str]:
        """What else tells its engines apart; in the manifest, and part of the store's key."""
        ...

    def versions(self) -> Mapping[str, str]:
        """Of all that its engines depend on, by distribution."""
        ...

    def build(self, request: BuildRequest) -> Built:
        """Make an engine.

        Raises:
            LowerError: an operator that the target cannot take, named.
        """
        ...


@runtime_checkable
class CompletingTarget(Protocol):
    """A target whose bundles hold further files: a build script, a server's configuration."""

    def further_files(self, manifest: Manifest) -> Mapping[str, bytes]:
        """By path in the bundle, with forward slashes; written under these very names.

        Args:
            manifest: as it will be, without these files.
        """
        ...


_HERE = "turbo4d.compiler.bundle"
TARGETS: dict[str, str] = {
    "aot-inductor": f"{_HERE}.aot_inductor:AotInductorTarget",
    "jetson-orin": f"{_HERE}.jetson:JetsonTarget",
    "jetson-thor": f"{_HERE}.jetson:JetsonTarget",
    "onnxruntime": f"{_HERE}.onnxruntime:OnnxRuntimeTarget",
    "tensorrt": f"{_HERE}.tensorrt:TensorRTTarget",
    "tensorrt-rtx": f"{_HERE}.tensorrt:TensorRTTarget",
    "torch-tensorrt": f"{_HERE}.torch_tensorrt:TorchTensorRTTarget",
    "triton": f"{_HERE}.triton:TritonTarget",
}
"""Where each is made: called as `made(name, device, settings)`, device "" where none was named."""


def target_of(spelled: str, settings: Mapping[str, str] | None = None) -> TargetBuilder:
    """The target that `NAME` or `NAME:DEVICE` means.

    Args:
        spelled: "onnxruntime", "tensorrt-rtx:sm89", ...
        settings: of the target; it refuses what it does not know.

    Raises:
        OptionError: an unknown target or device, with the choices.
    """
    name, _, device = spelled.partition(":")
    if name not in TARGETS:
        close = difflib.get_close_matches(name, TARGETS, n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        raise OptionError(
            f"target {spelled!r} is unknown; choose {', '.join(map(repr, sorted(TARGETS)))}.{meant}"
        )
    home, _, made = TARGETS[name].partition(":")
    return getattr(import_module(home), made)(name, device, dict(settings or {}))


def refuse_unable(target: TargetBuilder, reasons: Sequence[str]) -> None:
    """Refuse a target that cannot be built for on this machine.

    Args:
        target: that is wanted.
        reasons: against any target, besides its own.

    Raises:
        LowerError: with all reasons.
    """
    if against := (*reasons, *target.reasons()):
        raise LowerError(
            f"target '{target.name}:{target.device}' cannot be built here: {'; '.join(against)}."
        )


def refuse_dtypes(target: TargetBuilder, dtypes: Collection[torch.dtype]) -> None:
    """Refuse dtypes that a target's engines cannot compute in.

    Args:
        target: that is wanted.
        dtypes: of the module's weights and inputs, or of all values of its graphs.

    Raises:
        LowerError: with the reason.
    """
    if (reason := target.why_not_in(dtypes)) is not None:
        raise LowerError(
            f"target '{target.name}:{target.device}' cannot be built in this dtype: {reason}; "
            "build in float32 or float16, or for another target."
        )


def refuse_settings(name: str, settings: Mapping[str, str], known: Mapping[str, str]) -> None:
    """Refuse settings that a target has not.

    Args:
        name: of the target.
        settings: as given.
        known: what each that it has is for.

    Raises:
        OptionError: with the choices.
    """
    if opened := sorted({*settings} & OPEN_SETTINGS - {*known}):
        raise OptionError(open_text(name, f"setting {opened[0]!r} asks for others; leave it out"))
    if unknown := sorted(set(settings) - set(known)):
        there = ", ".join(map(repr, sorted(known))) or "none"
        raise OptionError(f"target {name!r} has no setting {unknown[0]!r}; there are: {there}.")
