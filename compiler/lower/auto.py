"""auto: what runs a variant best here without compiling anything for a model.

On a CPU that has a C++ compiler, float32 variants of exact plans take `native`'s kernels; all else
is `eager`, and so is plan `none`, which thus gives the plain module's result to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

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
        self._told: Callable[[str], None] = told or partial(say, 2)

    def supports(self, variant: Variant) -> tuple[str, ...]:
        """Nothing is missing."""
        return ()

    def compile(self, variant: Variant) -> Engine:
        """The variant by the lowering that takes it.

        Raises:
            LowerError: the kernels do not compile.
        """
        reasons = ("it is to be exact in every bit",)
        if variant.key.exact:
            reasons = self._native.supports(variant)
        if reasons:
            self._told(f"{variant.key.name}: lowering 'eager', not 'native': {'; '.join(reasons)}")
            return EagerLowering().compile(variant)
        self._told(f"{variant.key.name}: lowering 'native'")
        return self._native.compile(variant)
