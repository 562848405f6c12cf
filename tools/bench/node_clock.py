"""Times every call of a graph, one after the other, without waiting for the device between them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, fx


class Clock(Protocol):
    """Marks moments, and tells afterwards what passed between them."""

    def mark(self) -> None:
        """Marks now, as the device sees it."""
        ...

    def seconds(self) -> list[float]:
        """Between each mark and the next; waits for the device."""
        ...


class HostClock:
    """Of a device that computes while it is called."""

    def __init__(self) -> None:
        self._marks: list[float] = []

    def mark(self) -> None:
        """Reads the clock."""
        self._marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Between each mark and the next."""
        pairs = zip(self._marks, self._marks[1:], strict=False)
        return [end - begun for begun, end in pairs]


class CudaClock:
    """Of a device that runs behind its host: an event is a mark in the device's own queue.

    Where the host is too slow to keep the queue filled, what the device waits for a call counts as
    that call's.
    """

    def __init__(self) -> None:
        self._marks: list[torch.cuda.Event] = []

    def mark(self) -> None:
        """Puts an event into the queue."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append(event)

    def seconds(self) -> list[float]:
        """Between each mark and the next."""
        torch.cuda.synchronize()
        pairs = zip(self._marks, self._marks[1:], strict=False)
        return [begun.elapsed_time(end) / 1e3 for begun, end in pairs]


def clock_for(device: torch.device) -> Clock:
    """The clock of a device."""
    return CudaClock() if device.type == "cuda" else HostClock()


def timed_calls(
    graph: fx.Graph, given: Sequence[Tensor], clock: Clock
) -> tuple[list[tuple[fx.Node, float]], Sequence[Any]]:
    """Runs a graph call by call.

    What a call made the last use of is let go within its own time, as generated code does.

    Args:
        graph: of calls and placeholders, as of a variant.
        given: one tensor for each placeholder.
        clock: new.

    Returns:
        Each call with its seconds, and the graph's results.
    """
    last = {operand: node for node in graph.nodes for operand in node.all_input_nodes}
    done: dict[fx.Node, list[fx.Node]] = {}
    for operand, node in last.items():
        done.setdefault(node, []).append(operand)
    left = iter(given)
    values: dict[fx.Node, Any] = {}
    calls: list[fx.Node] = []
    results: Sequence[Any] = ()
    marks = 0
    with torch.no_grad():
        for node in graph.nodes:
            if node.op == "placeholder":
                values[node] = next(left)
            elif node.op == "output":
                results = fx.map_arg(node.args[0], values.__getitem__)
            else:
                args: Any = fx.map_arg(node.args, values.__getitem__)
                kwargs: Any = fx.map_arg(node.kwargs, values.__getitem__)
                target: Any = node.target
                clock.mark()
                values[node] = target(*args, **kwargs)
                del args, kwargs
                for operand in done.get(node, ()):
                    del values[operand]
                clock.mark()
                calls.append(node)
                marks += 2
    # Every second interval is between two calls, and nobody's.
    return list(zip(calls, clock.seconds()[::2], strict=True)), results
