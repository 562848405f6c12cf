"""A graph that turbo4d leaves as it is: a piece of a broken forward that holds no region."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

from torch import Tensor

from .active import active_sessions


class PassedOn:
    """Runs a piece as it came, and tells the sessions that it belongs to.

    Args:
        call: the piece, in Dynamo's order of arguments.
        weights: positions of the weights among them.
        reason: a sentence that says which piece it is and why nothing is done with it.
    """

    def __init__(
        self, call: Callable[..., Sequence[Tensor]], weights: Sequence[int], reason: str
    ) -> None:
        self.reason = reason
        self._call = call
        self._weights = tuple(weights)
        self._called_with: list[weakref.ref[Tensor]] = []

    def __call__(self, *args: Tensor) -> Sequence[Tensor]:
        """One call of the piece."""
        if not self._called_with:
            self._called_with = [weakref.ref(args[index]) for index in self._weights]
            _CALLED.add(self)
        for session in active_sessions():
            session.note_passed_on(self.reason, [args[index] for index in self._weights])
        return self._call(*args)

    @property
    def weights(self) -> list[Tensor]:
        """Of the first call, those that are still alive."""
        return [weight for ref in self._called_with if (weight := ref()) is not None]


_CALLED: weakref.WeakSet[PassedOn] = weakref.WeakSet()


def passed_on() -> list[PassedOn]:
    """All graphs that were left as they are, called, and not let go."""
    return [*_CALLED]
