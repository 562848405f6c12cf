"""An opened engine as the runtime calls it: which tensors it takes of what a step has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter

from torch import Tensor
from turbo4d.runtime.conditional_engine import SharedEngine
from turbo4d.runtime.variant_key import VariantKey

from .dtypes import dtype_named
from .manifest import EngineRow, VariantRow

EngineCall = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""An opened engine: one tensor for each row of `takes` that is no weight, in their order, comes in;
one for each row of `gives` comes out. Its weights it has from where it was opened."""


class BoundEngine:
    """One variant.

    Args:
        variant: that it is.
        row: of its engine.
        signature: names of the inputs.
        call: the opened engine.
    """

    def __init__(
        self, variant: VariantRow, row: EngineRow, signature: Sequence[str], call: EngineCall
    ) -> None:
        self.key: VariantKey = variant.key
        self.reads = variant.reads
        self.writes = variant.writes
        self._call = call
        self._pick = _picker(row, signature)
        self._outputs = sum(each.kind == "output" for each in row.gives)

    def __call__(
        self, args: Sequence[Tensor], prologue: Sequence[Tensor], slots_in: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Run it; of a shared engine the flags follow the slots."""
        made = self._call(self._pick((*args, *slots_in, *prologue)))
        return made[: self._outputs], made[self._outputs :]


class BoundPrologue:
    """The prologue.

    Args:
        row: of its engine.
        signature: names of the inputs.
        call: the opened engine.
    """

    def __init__(self, row: EngineRow, signature: Sequence[str], call: EngineCall) -> None:
        self._call = call
        self._pick = _picker(row, signature)

    def __call__(self, args: Sequence[Tensor]) -> Sequence[Tensor]:
        """Run it."""
        return self._call(self._pick(args))


def shared_engine(row: EngineRow, signature: Sequence[str], call: EngineCall) -> SharedEngine:
    """The engine that is several variants, told by flags.

    Args:
        row: of the engine, which takes flags.
        signature: names of the inputs.
        call: the opened engine.
    """
    slots = [each for each in row.takes if each.kind == "slot"]
    given = tuple(each.source for each in row.gives if each.kind == "slot")
    key = VariantKey((), tuple(sorted({*given})), exact=True)
    whole = VariantRow(key, row.name, tuple(each.source for each in slots), given)
    flags = tuple(each.source for each in row.takes if each.kind == "flag")
    forms = [(each.shape, dtype_named(each.dtype)) for each in slots]
    return SharedEngine(BoundEngine(whole, row, signature, call), flags, forms)


def _picker(
    row: EngineRow, signature: Sequence[str]
) -> Callable[[Sequence[Tensor]], Sequence[Tensor]]:
    """Picks an engine's tensors out of the inputs, then slots and flags, then the prologue's."""
    places: Mapping[str, int] = {name: at for at, name in enumerate(signature)}
    taken = [each for each in row.takes if each.kind != "weight"]
    held = sum(each.kind in ("slot", "flag") for each in taken)
    following = iter(range(len(signature), len(signature) + held))
    first = len(signature) + held
    chosen: list[int] = []
    for each in taken:
        if each.kind == "input":
            chosen.append(places[each.source])
        elif each.kind == "prologue":
            chosen.append(first + int(each.source))
        else:
            chosen.append(next(following))
    if len(chosen) == 1:
        return lambda tensors: (tensors[chosen[0]],)
    return itemgetter(*chosen) if chosen else lambda _: ()
