"""From a variant to an engine: one file per lowering, looked up by name."""

from __future__ import annotations

import difflib
from typing import Protocol

from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.specialise import Variant
from turbo4d.runtime.engine import Engine

from .eager import EagerLowering


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


LOWERINGS: dict[str, type[Lowering]] = {"eager": EagerLowering}
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
