"""eager: run a variant's graph operator by operator, with the module's own weights.

The reference of every other lowering: it runs wherever torch does, copies nothing, and for a plan
that changes nothing it gives the plain module's result to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from turbo4d.compiler.compat import written

if TYPE_CHECKING:
    from turbo4d.compiler.prologue import Prologue
    from turbo4d.compiler.specialise import Variant
    from turbo4d.runtime.plan import VariantKey


class EagerEngine:
    """A variant as it is.

    Args:
        variant: its graph is generated Python, which drops each value after its last use.
    """

    def __init__(self, variant: Variant) -> None:
        self.key: VariantKey = variant.key
        self.reads = variant.reads
        self.writes = variant.writes
        self._outputs = variant.outputs
        self._pick = picker(variant.arg_indices)
        self._pick_prologue = picker(variant.prologue_indices)
        self._forward: Callable[..., Any] = written(variant.module).forward

    def __call__(
        self, args: Sequence[Tensor], prologue: Sequence[Tensor], slots_in: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Run the graph without recording gradients."""
        with torch.no_grad():
            returned = self._forward(*self._pick(args), *self._pick_prologue(prologue), *slots_in)
        return returned[: self._outputs], returned[self._outputs :]


class EagerPrologue:
    """A prologue as it is.

    Args:
        prologue: its graph is generated Python; it holds no tensor.
    """

    def __init__(self, prologue: Prologue) -> None:
        self.arg_indices = prologue.arg_indices
        self._pick = picker(prologue.arg_indices)
        self._forward: Callable[..., Any] = written(prologue.module).forward

    def __call__(self, args: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The values that variants take, without gradients."""
        with torch.no_grad():
            values = self._forward(*self._pick(args))
        return tuple(values)


class EagerLowering:
    """Takes every variant."""

    name = "eager"

    def supports(self, variant: Variant) -> tuple[str, ...]:
        """No reason against any."""
        return ()

    def compile(self, variant: Variant) -> EagerEngine:
        """Wrap the variant; nothing is built."""
        return EagerEngine(variant)


def picker(indices: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """A function that takes the items at `indices`, as a tuple whatever their number."""
    if not indices:
        return lambda args: ()
    if len(indices) == 1:
        only = indices[0]
        return lambda args: (args[only],)
    return itemgetter(*indices)
