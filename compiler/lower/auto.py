"""auto: what runs a variant best here without compiling anything for a model.

On a CPU that has a C++ compiler, float32 variants of exact plans take `native`'s kernels; all else
is `eager`, and so is plan `none`, which thus gives the plain module's result to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from turbo4d.compiler.errors import LowerError
from turbo4d.runtime.engine import Engine
from turbo4d.runtime.events import Event
from turbo4d.runtime.log import say

from .eager import EagerLowering
from .native import NativeLowering

if TYPE_CHECKING:
    from turbo4d.compiler.specialise import Variant


class AutoLowering:
    """Takes every variant: `native` where that can, `eager` where not.

    Args:
        native: asked first, of variants that need not be equal to the module in every bit.
        told: of each variant, which lowering takes it, and why not the first.
    """

    name = "auto"

    def __init__(
        self, native: NativeLowering | None = None, told: Callable[[str], None] | None = None
    ) -> None:
        self._native = native or NativeLowering()
        self._broken: tuple[str, ...] = ()  # why its kernels do not compile; found out once
        self._notes: tuple[Event, ...] = ()
        self._told: Callable[[str], None] = told or partial(say, 2)

    @property
    def notes(self) -> tuple[Event, ...]:
        """Why this machine runs by `eager` what `native` runs faster; none where it does not."""
        return self._notes

    def supports(self, variant: Variant) -> tuple[str, ...]:
        """Nothing is missing."""
        return ()

    def compile(self, variant: Variant) -> Engine:
        """The variant by the lowering that takes it."""
        name, refused = variant.key.name, self._refused(variant)
        reasons = refused or self._broken or self._native.lacks()
        if not reasons:
            try:
                engine = self._native.compile(variant)
            except LowerError as error:
                self._broken = reasons = (str(error),)
            else:
                self._told(f"{name}: lowering 'native'")
                return engine
        why = f"lowering 'eager', not 'native': {'; '.join(reasons)}"
        if not refused:  # the variant would be taken, and the machine lacks what it takes
            self._notes = (Event(None, None, "lowering-fallback", f"{why.rstrip('.')}."),)
        self._told(f"{name}: {why}")
        return EagerLowering().compile(variant)

    def _refused(self, variant: Variant) -> tuple[str, ...]:
        if not variant.key.exact:
            return ("it is to be exact in every bit",)
        return self._native.refuses(variant)
