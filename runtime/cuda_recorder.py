"""What records a function as a CUDA graph; all that it records shares one pool of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from .errors import OptionError

Results = Sequence[Sequence[Tensor]]


class Recording(Protocol):
    """A function that was recorded."""

    @property
    def results(self) -> Results:
        """What it gives, at the addresses that every replay writes to."""
        ...

    def replay(self) -> None:
        """Runs it on what its inputs hold now."""
        ...


class Recorder(Protocol):
    """Records functions, into one pool of memory."""

    def record(self, function: Callable[[], Results]) -> Recording:
        """Records what a function asks of the device; nothing is run.

        Raises:
            RuntimeError: the function does what cannot be recorded, such as waiting for the device.
        """
        ...

    def order(self) -> None:
        """Makes what comes next in the current stream wait for the last replay."""
        ...

    def replayed(self) -> None:
        """Says that a replay, and the copies of what it gave, are in the current stream."""
        ...


class CudaRecording:
    """A CUDA graph, and the tensors that it writes."""

    def __init__(self, graph: torch.cuda.CUDAGraph, results: Results) -> None:
        self._graph = graph
        self.results = results

    def replay(self) -> None:
        """Puts the graph into the current stream."""
        self._graph.replay()


class CudaRecorder:
    """Records CUDA graphs of one device.

    Args:
        device: of all that is recorded.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream: torch.cuda.Stream | None = None  # of the last replay
        self._event: torch.cuda.Event | None = None

    def record(self, function: Callable[[], Results]) -> CudaRecording:
        """Records on a stream of its own, as CUDA asks; other threads may go on meanwhile.

        Raises:
            RuntimeError: the function does what cannot be recorded.
        """
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local")
        with torch.cuda.device(self._device), recording:
            results = function()
        return CudaRecording(graph, results)

    def order(self) -> None:
        """Waits in the current stream, not on the host."""
        current = torch.cuda.current_stream(self._device)
        if self._event is not None and self._stream != current:
            current.wait_event(self._event)

    def replayed(self) -> None:
        """Marks the current stream."""
        self._stream = torch.cuda.current_stream(self._device)
        self._event = self._event or torch.cuda.Event()
        self._event.record(self._stream)


def cuda_recorder(device: torch.device) -> Recorder:
    """What records on a device.

    Raises:
        OptionError: the device has no CUDA graphs.
    """
    if device.type != "cuda":
        raise OptionError(
            f"cuda_graphs is on and the sample is on {device.type!r}, which has none; leave it off."
        )
    return CudaRecorder(device)
