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
        self._told: Callable[[str], None] = told or partial(say, 2)

    def supports(self, variant: Variant) -> tuple[str, ...]:
        """Nothing is missing."""
        return ()

    def compile(self, variant: Variant) -> Engine:
        """The variant by the lowering that takes it."""
        name, reasons = variant.key.name, self._reasons_against_native(variant)
        if not reasons:
            try:
                engine = self._native.compile(variant)
            except LowerError as error:
                self._broken = reasons = (str(error),)
            else:
                self._told(f"{name}: lowering 'native'")
                return engine
        self._told(f"{name}: lowering 'eager', not 'native': {'; '.join(reasons)}")
        return EagerLowering().compile(variant)

    def _reasons_against_native(self, variant: Variant) -> tuple[str, ...]:
        if not variant.key.exact:
            return ("it is to be exact in every bit",)
        return self._broken or self._native.supports(variant)
