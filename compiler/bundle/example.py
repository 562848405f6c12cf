"""example: what one engine takes and gives in a recorded call of its variant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from turbo4d.runtime.bundle.manifest import TensorRow, VariantRow

from .comparison import difference
from .part import PROLOGUE, Part
from .reference import Recorded, Reference

Example = tuple[list[Tensor], list[Tensor | None]]


def example_of(part: Part, variants: Sequence[VariantRow], reference: Reference | None) -> Example:
    """One tensor for each that a part takes, and what torch gives for each that it gives.

    Args:
        part: of the bundle.
        variants: of the bundle; of those that the part's engine runs the first is taken.
        reference: what was recorded; None for nothing.

    Returns:
        Both empty where nothing was recorded. None among the second stands for a slot that the
        engine gives and the variant does not write.
    """
    if reference is None:
        return [], []
    if part.name == PROLOGUE:
        call, skipped = reference.calls[PROLOGUE], frozenset[str]()
    else:
        key = next(row.key for row in variants if row.engine == part.name)
        call, skipped = reference.calls[key.name], frozenset(name for name, _ in key.actions)
    return [*given_of(part.takes, call, skipped)], [*wanted_of(part.gives, call)]


def error_of(results: Sequence[Tensor], wanted: Sequence[Tensor | None]) -> float:
    """The largest relative error of an engine's results, of those that are known."""
    known = [pair for pair in zip(results, wanted, strict=True) if pair[1] is not None]
    return max(
        (difference(got, want).relative for got, want in known if want is not None), default=0.0
    )


def given_of(
    rows: Sequence[TensorRow], call: Recorded, skipped: frozenset[str]
) -> Iterator[Tensor]:
    """For each row that is no weight, the tensor that a recorded call had there.

    Args:
        rows: of what an engine takes.
        call: that was recorded.
        skipped: regions whose flag is true.
    """
    slots: dict[str, list[Tensor]] = {}
    for name, value in call.slots_in:
        slots.setdefault(name, []).append(value)
    for row in rows:
        if row.kind == "input":
            yield call.inputs[row.source]
        elif row.kind == "prologue":
            yield call.prologue[int(row.source)]
        elif row.kind == "flag":
            yield torch.tensor(row.source in skipped)
        elif slots.get(row.source):
            yield slots[row.source].pop(0)
        else:  # a conditional engine takes every slot, its variants only their own
            yield torch.zeros(row.shape, dtype=getattr(torch, row.dtype))


def wanted_of(rows: Sequence[TensorRow], call: Recorded) -> Iterator[Tensor | None]:
    """For each row of what an engine gives, what a recorded call gave; None where it did not.

    Args:
        rows: of what an engine gives.
        call: that was recorded.
    """
    slots: dict[str, list[Tensor]] = {}
    for name, value in call.slots_out:
        slots.setdefault(name, []).append(value)
    for row in rows:
        if row.kind == "output":
            yield call.outputs[int(row.source)]
        else:
            yield slots[row.source].pop(0) if slots.get(row.source) else None
