"""A graph that turbo4d leaves as it is: a piece of a broken forward that holds no region."""

from __future__ import annotations

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

    def __call__(self, *args: Tensor) -> Sequence[Tensor]:
        """One call of the piece."""
        for session in active_sessions():
            session.note_passed_on(self.reason, [args[index] for index in self._weights])
        return self._call(*args)
