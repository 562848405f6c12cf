"""What a run takes for constant, its conditioning and the weights, and whether it has changed."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import is_

import torch
from torch import Tensor

from .compat import versions_of
from .errors import SessionError
from .signature import Signature

_Marks = tuple[list[int], list[int | None]]  # per weight its address and version


@dataclass(frozen=True)
class Change:
    """One thing that is no longer as it was.

    Args:
        kind: "conditioning", "channels" (declared invariant) or "weight".
        name: of the argument.
        what: the same in words, "conditioning 'context'".
    """

    kind: str
    name: str
    what: str


class Constants:
    """Compares calls with the one that was kept.

    Conditioning is compared by contents, which waits for the device. Weights are compared by
    identity, address and version: whether they are the tensors they were, and were not written to.

    Args:
        signature: says which arguments are conditioning, or have channels that are.
    """

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._weight_count = signature.weight_count
        self._kept: list[Tensor] | None = None
        # Not the tensors themselves: a model that is let go must not be kept.
        self._weights: list[weakref.ref[Tensor]] = []
        self._marks: _Marks = [], []

    @property
    def kept(self) -> bool:
        """Whether there is a call to compare with."""
        return self._kept is not None

    @property
    def has_unversioned_weights(self) -> bool:
        """Whether some kept weight could be written to without a trace."""
        return None in self._marks[1]

    def keep(self, args: Sequence[Tensor]) -> None:
        """Keeps copies of the conditioning: the caller may write into its tensors."""
        self._kept = [tensor.detach().clone() for _, _, tensor in self._watched(args)]
        weights = args[: self._weight_count]
        self._weights = [weakref.ref(weight) for weight in weights]
        self._marks = _marks_of(weights)

    def change(self, args: Sequence[Tensor]) -> Change | None:
        """The first thing that differs from the kept call; None where nothing does."""
        if self._kept is None:
            return None
        weights = args[: self._weight_count]
        if (index := self._other_weight(weights)) is not None:
            name = self._signature.names[index]
            return Change("weight", name, f"weight {name!r}")
        for (index, channels, tensor), old in zip(self._watched(args), self._kept, strict=True):
            if not same_contents(old, tensor):
                name = self._signature.names[index]
                if channels is None:
                    return Change("conditioning", name, f"conditioning {name!r}")
                span = f"{channels[0]}:{channels[1]}"
                return Change("channels", name, f"channels {span} of input {name!r}")
        return None

    def refuse_change(self, args: Sequence[Tensor], step: int, stream: str) -> None:
        """Keeps a run's first call, and refuses one that is not as it was.

        Raises:
            SessionError: naming what changed.
        """
        if not self.kept:
            self.keep(args)
        elif (change := self.change(args)) is not None:
            otherwise = {
                "conditioning": f", or compile with invariant={{{change.name!r}: False}} where it "
                "changes at every step",
                "channels": f", or compile without them in invariant[{change.name!r}] where they "
                "change at every step",
            }.get(change.kind, "")
            raise SessionError(
                f"step {step} of stream {stream!r}: {change.what} changed since the run's first "
                "call; a session takes it to stay the same. Call run.new_conditioning() before the "
                f"step{otherwise}."
            )

    def forget(self) -> None:
        """Lets the kept call go."""
        self._kept, self._weights, self._marks = None, [], ([], [])

    def _other_weight(self, weights: Sequence[Tensor]) -> int | None:
        """Index of the first that is another tensor, lies elsewhere or was written to."""
        alive = [ref() for ref in self._weights]
        marks = _marks_of(weights)
        # There are thousands, so they are looked at one by one only where something differs.
        if all(map(is_, alive, weights)) and marks == self._marks:
            return None
        now = zip(weights, *marks, strict=True)
        kept = zip(alive, *self._marks, strict=True)
        return next(
            index
            for index, (new, old) in enumerate(zip(now, kept, strict=True))
            if new[0] is not old[0] or new[1:] != old[1:]
        )

    def _watched(
        self, args: Sequence[Tensor]
    ) -> Iterator[tuple[int, tuple[int, int] | None, Tensor]]:
        for index in self._signature.conditioning:
            yield index, None, args[index]
        for index, spans in self._signature.invariant.items():
            for start, stop in spans:
                yield index, (start, stop), args[index][:, start:stop]


def _marks_of(weights: Sequence[Tensor]) -> _Marks:
    return [weight.data_ptr() for weight in weights], versions_of(weights)


def same_contents(old: Tensor, new: Tensor) -> bool:
    """Whether two tensors are alike in form and in every value; waits for the device."""
    return same_form(old, new) and torch.equal(old, new)


def same_form(old: Tensor, new: Tensor) -> bool:
    """Whether two tensors are alike in shape, dtype and device."""
    return old.shape == new.shape and old.dtype == new.dtype and old.device == new.device
