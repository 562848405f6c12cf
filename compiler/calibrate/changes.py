"""How much each group's values change from step to step: one recorded exact run per example.

The scalar products of a group's values at all steps tell the change from any sources, by any order:
it is the length of a weighted sum of those values. Each region counts alike, whatever its size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from turbo4d.runtime.fitted import STEP
from turbo4d.runtime.slot_storage import STORAGES, decode, encode

from .harness import Harness
from .moves import Group
from .replay import SAMPLE, Call, Recording, Values

# Of larger values so many entries are sampled, at equal distances.
_ENTRIES = 1 << 15


class Changes:
    """Sees what an exact run's slots would hold, and keeps a sample of each.

    Args:
        groups: whose values are seen.
        storages: whose rounding is measured beside.
    """

    def __init__(self, groups: Sequence[Group], storages: Sequence[str] = ()) -> None:
        self._groups = groups
        self._storages = storages
        self._values: dict[Call, dict[str, Tensor]] = {}
        self._rounding: dict[tuple[str, str, Call], list[float]] = {}

    @property
    def slots(self) -> tuple[str, ...]:
        """The slots to be seen."""
        return tuple(sorted({*chain.from_iterable(group.regions for group in self._groups)}))

    def see(self, at: Call, values: Values) -> None:
        """Takes a sample of the values of one call."""
        self._values[at] = {
            name: torch.cat([sampled(tensor) for tensor in of]) for name, of in values.items()
        }
        for group in self._groups:
            for storage in self._storages:
                errors = [rounding(values[name], storage) for name in group.regions]
                self._rounding[storage, group.name, at] = errors

    def found(self) -> Mapping[str, Any]:
        """Per stream what was seen, as JSON takes it: steps, products and rounding."""
        streams = sorted({stream for stream, _ in self._values})
        return {stream: self._of(stream) for stream in streams}

    def _of(self, stream: str) -> Mapping[str, Any]:
        steps = sorted(step for of, step in self._values if of == stream)
        return {
            "steps": steps,
            "products": {
                group.name: self._products(stream, steps, group) for group in self._groups
            },
            "fit_products": self._fit_products(stream, steps),
            "rounding": {
                storage: {
                    group.name: [
                        _mean_square(self._rounding[storage, group.name, (stream, step)])
                        for step in steps
                    ]
                    for group in self._groups
                }
                for storage in self._storages
            },
        }

    def _fit_products(self, stream: str, steps: Sequence[int]) -> list[list[float]]:
        """Of what the step gives at each step, then of its samples [2 steps, 2 steps]; or none."""
        seen = [self._values[stream, step] for step in steps]
        if any(STEP not in of or SAMPLE not in of for of in seen):
            return []
        rows = torch.stack([*(of[STEP] for of in seen), *(of[SAMPLE] for of in seen)]).double()
        products: Any = (rows @ rows.T / rows[: len(steps)].square().sum(1).mean()).cpu()
        return products.tolist()

    def _products(self, stream: str, steps: Sequence[int], group: Group) -> list[list[float]]:
        total = torch.zeros(len(steps), len(steps), dtype=torch.float64)
        for name in group.regions:
            rows = torch.stack([self._values[stream, step][name] for step in steps]).double()
            own = (rows @ rows.T).cpu()
            total += own / own.diagonal().mean().clamp_min(torch.finfo().tiny)
        products: Any = total / len(group.regions)
        return products.tolist()


def changes_of(
    harness: Harness, example: object, groups: Sequence[Group], *, storages: bool
) -> Mapping[str, Any]:
    """One example's changes; see `Changes.found`.

    Args:
        harness: that has learned.
        example: to sample.
        groups: of the model.
        storages: whether the rounding of each storage is measured.
    """
    seen = Changes(groups, STORAGES[1:] if storages else ())
    recording: Recording = harness.record(example, seen.slots, seen.see)
    harness.again(example, recording)
    return seen.found()


def sampled(value: Tensor) -> Tensor:
    """So many entries of a value that their norm stands for the whole's."""
    stride = max(1, value.numel() // _ENTRIES)
    # A stride that divides an axis would see one channel only; an odd one walks through them all.
    return value.detach().reshape(-1)[:: stride | 1].float()


def rounding(values: Sequence[Tensor], storage: str) -> float:
    """The relative error (L2) of tensors that are kept in a storage."""
    off = [decode(encode(value, storage)) - value for value in values]
    size = _square_sum(values)
    return (_square_sum(off) / size) ** 0.5 if size else 0.0


def _square_sum(values: Sequence[Tensor]) -> float:
    return sum(float(value.double().square().sum()) for value in values)


def _mean_square(errors: Sequence[float]) -> float:
    return (sum(error**2 for error in errors) / len(errors)) ** 0.5
