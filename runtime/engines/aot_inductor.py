"""AOTInductor packages: native code, which only runs where the caller has said that it may.

Opening one imports neither `torch._dynamo` nor `torch._inductor`.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from turbo4d.runtime.bundle.bundle_files import Bundle
from turbo4d.runtime.bundle.manifest import EngineRow
from turbo4d.runtime.bundle.weights import BundleWeights
from turbo4d.runtime.compat import open_package
from turbo4d.runtime.errors import EngineError


class AotInductorSession:
    """A package, opened.

    Args:
        path: of the package. Its hash was checked: this runs the code that it holds.
        device: "cpu" or "cuda".

    Raises:
        EngineError: torch cannot open it.
    """

    def __init__(self, path: str | os.PathLike[str], device: str) -> None:
        try:
            self._run = open_package(os.fspath(path), 0 if device == "cuda" else -1)
        except RuntimeError as error:
            raise EngineError(
                f"{Path(path).name} is no package that torch {torch.__version__} can open "
                f"({_first_line(error)}); build the bundle again."
            ) from error

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor]:
        """Run it.

        Args:
            given: weights, inputs and slots, in the engine's order.

        Raises:
            EngineError: the code does not take them.
        """
        try:
            with torch.no_grad():
                return list(self._run([tensor.detach().contiguous() for tensor in given]))
        except RuntimeError as error:
            raise EngineError(
                f"the package failed ({_first_line(error)}); `turbo4d verify` says which engine."
            ) from error


def open_engine(
    bundle: Bundle, row: EngineRow, weights: BundleWeights
) -> Callable[[Sequence[Tensor]], Sequence[Tensor]]:
    """An engine of a bundle, which has its weights.

    Args:
        bundle: whose files have been checked.
        row: of the engine.
        weights: of the bundle.

    Raises:
        EngineError: the bundle may not run native code, or this code cannot run here.
    """
    if not bundle.allow_native:
        raise EngineError(
            "the package holds native code; load the bundle with allow_native=True if you trust it "
            "as you would a program"
        )
    target = bundle.manifest.target
    if reason := why_not_here(target.settings, bundle.manifest.made_with, target.device):
        raise EngineError(reason)
    session = AotInductorSession(bundle.path(row.engine), target.device)
    device = torch.device(target.device)
    held = [weights.on(each.source, device) if each.kind == "weight" else None
            for each in row.takes]  # fmt: skip

    def call(given: Sequence[Tensor]) -> Sequence[Tensor]:
        left = iter(given)
        return session([next(left) if weight is None else weight for weight in held])

    return call


def why_not_here(
    settings: Mapping[str, str], made_with: Mapping[str, str], device: str
) -> str | None:
    """Why packages of a bundle cannot run on this machine; None where they can.

    Args:
        settings: of the bundle's target.
        made_with: versions that the bundle was built with.
        device: that it was built for.
    """
    if (built := made_with.get("torch")) != torch.__version__:
        return f"the package was built with torch {built}, and this is {torch.__version__}"
    if device == "cuda" and not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if (code := settings.get("code")) != (here := code_for(device)):
        return f"the package is code for {code}, and this is {here}"
    return None


def code_for(device: str) -> str:
    """The instruction set of this machine: code for another one would end the process it runs in.

    Args:
        device: "cpu" or "cuda", which must be there.
    """
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        return f"sm{major}{minor}"
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _first_line(error: RuntimeError) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason")
