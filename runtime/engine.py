"""What a lowered variant looks like to the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from .variant_key import VariantKey


class Engine(Protocol):
    """A variant that can be called: a pure function of its arguments and slots.

    It keeps nothing between calls. Its outputs share no memory with its slots: a caller may write
    into an output, and the slots must not notice. The compiler's verifier proves that.
    """

    @property
    def key(self) -> VariantKey:
        """The variant it was built from."""
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """Regions whose slots it takes, in the order of `slots_in`."""
        ...

    @property
    def writes(self) -> tuple[str, ...]:
        """Regions whose slots it gives, in the order of the second result."""
        ...

    def __call__(
        self, args: Sequence[Tensor], prologue: Sequence[Tensor], slots_in: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Runs it.

        Args:
            args: all flat arguments in the order of `Signature.names`; it picks what it needs.
            prologue: all that the denoiser's `Prologue` gave for this conditioning; it picks what
                it needs. Empty for a variant without exact passes.
            slots_in: one per name in `reads`; a region whose cut has several values is named once
                for each.

        Returns:
            The model's flat outputs, and one slot per name in `writes`.
        """
        ...


class Prologue(Protocol):
    """Everything that depends on the conditioning alone, computed once per stream."""

    def __call__(self, args: Sequence[Tensor]) -> Sequence[Tensor]:
        """Runs it.

        Args:
            args: all flat arguments in the order of `Signature.names`.

        Returns:
            The values that variants take, in one order for all of them.
        """
        ...
