"""What a user's sampler calls in place of its network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


class Denoiser:
    """A network that is told, or counts, which step of which stream each call is.

    It has the network's attributes too, for samplers that read its configuration or its dtype.

    Args:
        call: the network as it is run.
        network: whose attributes it shows.
        before: called with the stream and the step before each call.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        network: nn.Module,
        before: Callable[[str, int], None],
    ) -> None:
        self._call = call
        self._network = network
        self._before = before
        self._said: tuple[str, int] | None = None
        self._calls = 0

    def step(self, index: int, stream: str = "main") -> None:
        """Says which step of which stream the next call is.

        Args:
            index: of the step, 0 for the noisiest.
            stream: one independent sequence of steps: a guidance branch, a chunk, a direction.
        """
        self._said = stream, int(index)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One call of the network; what was not said is the next step of the stream "main"."""
        stream, step = self._said or ("main", self._calls)
        self._said = None
        self._calls += 1
        self._before(stream, step)
        return self._call(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """An attribute of the network."""
        return getattr(self._network, name)
