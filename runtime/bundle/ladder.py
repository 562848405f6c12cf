"""How each engine of a bundle is opened here: the first rung that holds.

    exact       the engine as it was built, on the device that it was built for
    rebuilt     built here from its graph, with the timing cache beside the bundle (tensorrt*)
    graph       its graph, run by ONNX Runtime
    none        an error that says why each rung broke

A vendor's file gives an opener. It raises a `Turbo4DError` where it cannot open an engine, and its
sentence becomes the reason why the next rung is tried. Every rung but the first is an event.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import torch
from turbo4d.runtime.errors import BundleError, Turbo4DError
from turbo4d.runtime.events import Event
from turbo4d.runtime.log import say

from .bound_engine import EngineCall
from .bundle_files import Bundle
from .manifest import EngineRow
from .weights import BundleWeights

Opener = Callable[[Bundle, EngineRow, BundleWeights], EngineCall]

OPENERS: dict[str, str | Opener] = {
    "aot-inductor": "aot_inductor:open_engine",
    "onnxruntime": "onnxruntime:open_graph",
    "tensorrt": "tensorrt:open_engine",
    "tensorrt-kit": "tensorrt:open_kit",
    "tensorrt-rebuilt": "tensorrt_build:rebuild_engine",
    "torch-tensorrt": "torch_tensorrt:open_engine",
}
"""By name the file of `runtime/engines` and its function, imported when it is first needed."""


@dataclass(frozen=True)
class Rung:
    """One way to open an engine.

    Args:
        name: for the reader.
        opener: among `OPENERS`.
        exact: whether it is the target's own file, and so wants the target's device and versions.
        gpu: whether it wants a GPU.
        native: whether the file holds native code.
    """

    name: str
    opener: str
    exact: bool = True
    gpu: bool = False
    native: bool = False


GRAPH = Rung("ONNX Runtime", "onnxruntime", exact=False)
KIT = Rung("TensorRT", "tensorrt-kit", exact=False)
RUNGS: Mapping[str, tuple[Rung, ...]] = {
    "aot-inductor": (Rung("AOTInductor", "aot-inductor", native=True), GRAPH),
    "jetson-orin": (KIT, GRAPH),
    "jetson-thor": (KIT, GRAPH),
    "onnxruntime": (Rung("ONNX Runtime as built", "onnxruntime"), GRAPH),
    "tensorrt": (
        Rung("TensorRT", "tensorrt", gpu=True),
        Rung("TensorRT rebuilt", "tensorrt-rebuilt", exact=False, gpu=True),
        GRAPH,
    ),
    "tensorrt-rtx": (
        Rung("TensorRT-RTX", "tensorrt", gpu=True),
        Rung("TensorRT-RTX rebuilt", "tensorrt-rebuilt", exact=False, gpu=True),
        GRAPH,
    ),
    "torch-tensorrt": (Rung("Torch-TensorRT", "torch-tensorrt", gpu=True), GRAPH),
}
"""Per target the rungs in order."""

# What writes an engine's file must be what reads it; a graph is read by any version. Where the file
# is linked with torch, its opener compares.
_LIBRARIES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt-rtx"}


class Ladder:
    """Opens the engines of one bundle on one device.

    Args:
        bundle: whose files have been checked; its device is the first of `devices`.
        weights: of it.
        devices: to try in order; the first on which an engine opens is that of all engines.
        strict: whether the first rung of the first device is the only one.

    Raises:
        BundleError: where its target is unknown.
    """

    def __init__(
        self, bundle: Bundle, weights: BundleWeights, devices: Sequence[str], *, strict: bool
    ) -> None:
        target = bundle.manifest.target.name
        if target not in RUNGS:
            raise BundleError(
                f"{bundle.folder}: its target {target!r} is unknown; this turbo4d opens "
                f"{', '.join(sorted(RUNGS))}. Load it with a newer turbo4d."
            )
        self._bundle = bundle
        self._weights = weights
        self._rungs = RUNGS[target][:1] if strict else RUNGS[target]
        self._devices = [*devices[:1]] if strict else [*devices]
        self._opened: dict[str, EngineCall] = {}
        self._notes: list[Event] = []
        self._told: set[str] = set()

    @property
    def device(self) -> str:
        """On which engines run; settled once one is open."""
        return self._devices[0]

    @property
    def notes(self) -> tuple[Event, ...]:
        """Every other rung than the first that an engine was opened on, with the reasons."""
        return tuple(self._notes)

    def open(self, row: EngineRow) -> EngineCall:
        """An engine, opened once.

        Raises:
            BundleError: where no rung holds, with the reason of each.
        """
        reasons = self.reasons_against(row)
        if row.name in self._opened:
            return self._opened[row.name]
        raise BundleError(
            f"{self._bundle.folder}: engine {row.name!r} runs nowhere here; {'; '.join(reasons)}."
        )

    def reasons_against(self, row: EngineRow) -> tuple[str, ...]:
        """Why no rung holds for an engine; none where one does, which is then open."""
        if row.name in self._opened:
            return ()
        reasons: list[str] = []
        for device in self._devices:
            bundle = replace(self._bundle, device=device)
            for rung in self._rungs:
                reason = _against(rung, bundle, row)
                if reason is None:
                    try:
                        call = _opener(rung)(bundle, row, self._weights)
                    except Turbo4DError as error:
                        reason = str(error)
                    else:
                        self._settle(row, call, rung, device, reasons)
                        return ()
                reasons.append(f"{rung.name} on {device}: {reason.rstrip('.')}")
        return tuple(reasons)

    def _settle(
        self, row: EngineRow, call: EngineCall, rung: Rung, device: str, reasons: Sequence[str]
    ) -> None:
        self._opened[row.name] = call
        self._devices = [device]
        if self._told.issuperset(reasons):
            return
        self._told |= {*reasons}
        target = self._bundle.manifest.target
        message = (
            f"engines built for {target.name} on {target.device} run by {rung.name} on {device}: "
            f"{'; '.join(reasons)}."
        )
        self._notes.append(Event(None, None, "engine-fallback", message))
        say(1, message)


def _opener(rung: Rung) -> Opener:
    found = OPENERS[rung.opener]
    if not isinstance(found, str):
        return found
    module, name = found.split(":")
    opener: Opener = getattr(import_module(f"turbo4d.runtime.engines.{module}"), name)
    return opener


def _against(rung: Rung, bundle: Bundle, row: EngineRow) -> str | None:
    """Why a rung is not even tried."""
    target = bundle.manifest.target
    if rung.opener == "onnxruntime" and not row.graph:
        return "the bundle keeps no graph"
    on_gpu = bundle.device.startswith("cuda")
    if rung.gpu and not on_gpu:
        return f"it runs on a GPU, not on {bundle.device}"
    if rung.opener != "onnxruntime" and rung.exact and not row.engine:
        return "no engine was built"
    if rung.exact and (target.device == "cpu") == on_gpu:
        return f"it was built for {target.device}, not for {bundle.device}"
    if rung.exact and (reason := _other_gpu(target.device, bundle.device)) is not None:
        return reason
    if rung.native and not bundle.allow_native:
        return "its file holds native code; load it with allow_native=True where you trust it"
    return _other_version(bundle) if rung.exact else None


def _other_gpu(built: str, device: str) -> str | None:
    if not re.fullmatch(r"sm[0-9]+", built):
        return None
    major, minor = torch.cuda.get_device_capability(device)
    here = f"sm{major}{minor}"
    return None if here == built else f"it was built for {built}, and this GPU is {here}"


def _other_version(bundle: Bundle) -> str | None:
    library = _LIBRARIES.get(bundle.manifest.target.name)
    made_with = {
        name.lower().replace("_", "-"): each for name, each in bundle.manifest.made_with.items()
    }
    if library is None or library not in made_with:
        return None
    try:
        here = version(library)
    except PackageNotFoundError:
        return f"the package {library} is not installed"
    built = made_with[library]
    return None if here == built else f"it was built with {library} {built}; here is {here}"
