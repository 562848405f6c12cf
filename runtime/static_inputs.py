"""Tensors at addresses that do not move, into which the inputs of recorded steps are copied."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from .compat import versions_of

Key = tuple[Hashable, ...]


class StaticInputs:
    """One tensor for each input, value of the prologue and slot, shared by all recordings.

    Steps run one after another, so one variant's inputs may lie where another's did.
    """

    def __init__(self) -> None:
        self._held: dict[Key, Tensor] = {}
        # Where the prologue's values were copied to last, whose they are, and their writes' count.
        self._prologue: list[tuple[Tensor, weakref.ref[Tensor], int | None]] = []

    def place(
        self, kind: str, names: Sequence[Hashable], tensors: Sequence[Tensor]
    ) -> list[Tensor]:
        """Where tensors like these lie; made where there is none yet.

        Args:
            kind: "input", "prologue" or "slot".
            names: of the tensors; one that comes again is another tensor.
            tensors: as a call gives them.
        """
        seen: dict[Hashable, int] = {}
        found: list[Tensor] = []
        for name, tensor in zip(names, tensors, strict=True):
            seen[name] = seen.get(name, 0) + 1
            layout = tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device
            key = (kind, name, seen[name], *layout)
            if key not in self._held:
                self._held[key] = _like(tensor)
            found.append(self._held[key])
        return found

    def holds_prologue(self, own: Sequence[Tensor], values: Sequence[Tensor]) -> bool:
        """Whether these very values were the last to be copied, and to this place."""
        if len(values) != len(self._prologue):
            return False
        found = zip(own, values, versions_of(values), self._prologue, strict=True)
        return all(
            place is at and of() is value and count == version
            for place, value, version, (at, of, count) in found
        )

    def keep_prologue(self, own: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Remembers what was copied where, without keeping the values."""
        found = zip(own, values, versions_of(values), strict=True)
        self._prologue = [(place, weakref.ref(value), version) for place, value, version in found]

    @property
    def size_bytes(self) -> int:
        """What they take."""
        return sum(each.untyped_storage().nbytes() for each in self._held.values())


def copy_into(own: Tensor, given: Tensor) -> None:
    """Copies numbers; where both repeat an axis, once."""
    for axis, stride in enumerate(own.stride()):
        if stride == 0 and own.shape[axis] > 1:
            own, given = own.narrow(axis, 0, 1), given.narrow(axis, 0, 1)
    own.copy_(given)


def _like(tensor: Tensor) -> Tensor:
    """Memory of the same layout; no tensor of inference mode, which nobody may write to after."""
    with torch.inference_mode(False):
        return torch.empty_strided(
            tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
        )
