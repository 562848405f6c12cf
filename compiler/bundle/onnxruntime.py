"""onnxruntime: the graphs themselves are what runs; each is opened and run once where it is built.

Settings: weights "shared", read by all sessions where they lie, or "packed", laid out anew by each
for its kernels; see runtime/engines/onnxruntime.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version

import torch
from turbo4d.compiler.errors import LowerError
from turbo4d.runtime.bundle.manifest import TensorRow
from turbo4d.runtime.engines.onnxruntime import (
    PROVIDERS,
    WEIGHTS,
    OnnxSession,
    why_not_computed,
    why_not_here,
)
from turbo4d.runtime.errors import EngineError, OptionError

from .example import error_of
from .targets import BuildRequest, Built, refuse_settings

_SETTINGS = {"weights": "'shared' by all sessions, or 'packed' by each for its kernels"}


class OnnxRuntimeTarget:
    """Runs the graphs on the CPU, or on a GPU through one of the library's providers.

    Args:
        name: "onnxruntime".
        device: one of `PROVIDERS`, or "" for "cpu".
        settings: see `_SETTINGS`.
        spelled: what the caller wrote, where that is another target that is run so.

    Raises:
        OptionError: a device or a setting that it has not.
    """

    suffix = ".onnx"
    keeps_graphs = True

    def __init__(
        self, name: str, device: str, settings: Mapping[str, str], spelled: str = ""
    ) -> None:
        self.name = name
        self.device = device or "cpu"
        if self.device not in PROVIDERS:
            known = ", ".join(repr(f"{name}:{each}") for each in sorted(PROVIDERS))
            raise OptionError(f"target '{name}:{device}' is unknown; choose {known}.")
        refuse_settings(spelled or name, settings, _SETTINGS)
        self._weights = settings.get("weights", "shared")
        if self._weights not in WEIGHTS:
            raise OptionError(
                f"target {(spelled or name)!r}: setting weights is {self._weights!r}; choose "
                f"{' or '.join(map(repr, WEIGHTS))}."
            )

    def reasons(self) -> tuple[str, ...]:
        """The library that is missing, or its provider."""
        reason = why_not_here(self.device)
        return () if reason is None else (reason,)

    def why_not_in(self, dtypes: Collection[torch.dtype]) -> str | None:
        """bfloat16 on a CPU."""
        return why_not_computed(self.device, dtypes)

    def settings(self) -> Mapping[str, str]:
        """How sessions keep the weights."""
        return {"weights": self._weights}

    def versions(self) -> Mapping[str, str]:
        """Of the library, by any of the distributions that bring it."""
        found: dict[str, str] = {}
        for name in ("onnxruntime", "onnxruntime-gpu"):
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
        return found

    def build(self, request: BuildRequest) -> Built:
        """Open the graph, and run it where there is a call to run.

        Raises:
            LowerError: the library does not take the graph.
        """
        shared = dict(request.values) if self._weights == "shared" else None
        place = "cpu" if self.device == "cpu" else "cuda"
        try:
            session = OnnxSession(request.graph, device=self.device, weights=shared)
        except EngineError as error:
            raise LowerError(
                f"engine {request.name!r}: {str(error).rstrip('.')}; write what it names otherwise "
                "in the model, or build for another target."
            ) from error
        error = None
        if request.wanted:
            request.say(f"{request.name}: running")
            results = session([tensor.to(place) for tensor in request.given])
            error = error_of(results, request.wanted)
        takes = (*request.takes, *(weight_rows(request) if shared is not None else ()))
        return Built(None, takes, request.gives, executed=bool(request.wanted), error=error)


def weight_rows(request: BuildRequest) -> tuple[TensorRow, ...]:
    """The graph's weights, each of which stands for one of its initialisers."""
    held = request.held.items()
    return tuple(TensorRow(name, "weight", row.name, row.shape, row.dtype) for name, row in held)
