"""From a variant to an engine: one file per lowering, looked up by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.specialise import Variant
from turbo4d.runtime.engine import Engine

from .eager import EagerLowering, EagerPrologue
from .inductor import InductorLowering
from .onnxruntime import OnnxRuntimeLowering

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
    "onnxruntime": OnnxRuntimeLowering,
}
# On a CPU compiling pays late: nano, 2 cores of an AMD EPYC, torch 2.13, balanced: 133 s of CPU for
# all engines, while a step of 0.57 s saves less than half of that. A sample has some 20 steps.
AUTO = ("eager",)
"""What "auto" tries, in order."""


def get_lowering(name: str) -> Lowering:
    """The lowering called `name`; "auto" is the first of `AUTO`.

    Raises:
        LowerError: for an unknown name, with the choices.
    """
    found = LOWERINGS.get(AUTO[0] if name == "auto" else name)
    if found is None:
        choices = sorted([*LOWERINGS, "auto"])
        close = difflib.get_close_matches(name, choices, n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        raise LowerError(
            f"lowering {name!r} is unknown; choose {', '.join(map(repr, choices))}.{meant}"
        )
    return found()
