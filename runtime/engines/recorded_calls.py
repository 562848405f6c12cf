"""Calls of an engine recorded as CUDA graphs, one for each set of addresses; run on no GPU yet."""

from __future__ import annotations

from collections.abc import Callable

import torch

MOST = 32
"""Sets of addresses whose calls are kept; any other is called as it is."""

_PLAIN, _REMEMBERED = 2, 1024


class RecordedCalls:
    """Plays a call that was made before with the same tensors' addresses.

    Slots move between few addresses, so the same sets come back. What is played writes to the very
    tensors that the call made, so no tensor is ever written that somebody else holds.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, ...], int] = {}
        self._recorded: dict[tuple[int, ...], torch.cuda.CUDAGraph] = {}

    def run(self, addresses: tuple[int, ...], call: Callable[[], None]) -> None:
        """Play the recorded call, or make it; the third with these addresses is recorded."""
        if (graph := self._recorded.get(addresses)) is not None:
            graph.replay()
            return
        if len(self._seen) > _REMEMBERED:
            self._seen.clear()
        seen = self._seen.get(addresses, 0)
        self._seen[addresses] = seen + 1
        if seen < _PLAIN or len(self._recorded) == MOST:
            call()
            return
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        graph.replay()
        self._recorded[addresses] = graph
