"""From a variant to an engine: one file per lowering, looked up by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.specialise import Variant
from turbo4d.runtime.engine import Engine

from .auto import AutoLowering
from .eager import EagerLowering, EagerPrologue
from .inductor import InductorLowering
from .native import NativeLowering
from .onnxruntime import OnnxRuntimeLowering
from .triton_kernels import TritonKernelsLowering

if TYPE_CHECKING:
    from turbo4d.compiler.prologue import Prologue


class Lowering(Protocol):
    """Turns variants into engines of one kind."""

    name: str

    def supports(self, variant: Variant) -> tuple[str, ...]:
        """Reasons why a variant cannot be lowered; none where it can."""
        ...

    def compile(self, variant: Variant) -> Engine:
        """Build the engine of a variant.

        Raises:
            LowerError: where `supports` has a reason.
        """
        ...


@runtime_checkable
class PrologueLowering(Protocol):
    """A lowering that builds prologues too."""

    def compile_prologue(
        self, prologue: Prologue
    ) -> Callable[[Sequence[Tensor]], Sequence[Tensor]]:
        """Build what computes a prologue's values.

        Raises:
            LowerError: where it cannot be compiled.
        """
        ...


def lower_prologue(
    prologue: Prologue, lowering: Lowering
) -> Callable[[Sequence[Tensor]], Sequence[Tensor]]:
    """A prologue by the lowering of its steps, or by torch where that has none of its own."""
    if isinstance(lowering, PrologueLowering):
        return lowering.compile_prologue(prologue)
    return EagerPrologue(prologue)


LOWERINGS: dict[str, type[Lowering]] = {
    "eager": EagerLowering,
    "inductor": InductorLowering,
    "native": NativeLowering,
    "onnxruntime": OnnxRuntimeLowering,
    "triton-kernels": TritonKernelsLowering,
}
AUTO = "auto"
"""The lowering that picks another for each variant; no choice of its own."""


def get_lowering(name: str) -> Lowering:
    """The lowering called `name`; "auto" picks one for each variant.

    Raises:
        LowerError: for an unknown name, with the choices.
    """
    found = AutoLowering if name == AUTO else LOWERINGS.get(name)
    if found is None:
        choices = sorted([*LOWERINGS, AUTO])
        close = difflib.get_close_matches(name, choices, n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        raise LowerError(
            f"lowering {name!r} is unknown; choose {', '.join(map(repr, choices))}.{meant}"
        )
    return found()
