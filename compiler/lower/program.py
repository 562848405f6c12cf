"""program: a graph as a list of compiled segments, run in order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, fx
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.segments import split
from turbo4d.passes.base import returned
from turbo4d.runtime.progress import Progress

from .compat import Form
from .segment_library import SegmentLibrary

Strides = tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One call of a compiled segment, by positions among the values of a run.

    Args:
        call: the segment.
        takes: its inputs.
        gives: its results.
        frees: what no later step takes.
    """

    call: Callable[..., Sequence[Tensor]]
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    frees: tuple[int, ...]


class Program:
    """A graph that is compiled segment by segment, and then called as one function.

    Between two segments a value has the layout that suits the compiler.

    Args:
        graph: flat; its results own their memory.
        inputs: for each placeholder, what it will be given.
        results: strides of each result.
        cuts: names after which a segment ends.
        library: that compiles and keeps the segments.
        label: of the graph, for messages.

    Raises:
        LowerError: a segment cannot be compiled.
    """

    def __init__(
        self,
        graph: fx.Graph,
        inputs: Sequence[Form],
        results: Sequence[Strides],
        cuts: Collection[str],
        library: SegmentLibrary,
        label: str,
    ) -> None:
        self.inputs = tuple(inputs)
        self.label = label
        self._names = [node.name for node in graph.nodes if node.op == "placeholder"]
        self._place = {name: place for place, name in enumerate(self._names)}
        self.steps = self._build(graph, cuts, library)
        self._results = [
            (self._place[node.name], strides)
            for node, strides in zip(returned(graph), results, strict=True)
        ]

    def _build(
        self, graph: fx.Graph, cuts: Collection[str], library: SegmentLibrary
    ) -> tuple[Step, ...]:
        segments = split(graph, cuts)
        last: dict[str, int] = {}
        for number, segment in enumerate(segments):
            last |= dict.fromkeys((*segment.inputs, *segment.outputs), number)
        values = {node.name: node.meta.get("val") for node in graph.nodes}
        forms = dict(zip(self._names, self.inputs, strict=True))
        kept = {node.name for node in returned(graph)}
        steps: list[Step] = []
        with Progress() as progress:
            for number, segment in enumerate(segments):
                progress.say(f"inductor: segment {number + 1} of {len(segments)} of {self.label!r}")
                compiled = library.get(segment.graph, [forms[name] for name in segment.inputs])
                for name, strides in zip(segment.outputs, compiled.strides, strict=True):
                    forms[name] = form_of(values[name], strides)
                    self._place[name] = len(self._place)
                used = {*segment.inputs, *segment.outputs} - kept
                done = sorted(name for name in used if last[name] == number)
                takes, gives, frees = (
                    tuple(self._place[name] for name in names)
                    for names in (segment.inputs, segment.outputs, done)
                )
                steps.append(Step(compiled.call, takes, gives, frees))
        return tuple(steps)

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor]:
        """Run the segments in order, without recording gradients.

        Args:
            given: one for each placeholder of the graph.

        Raises:
            LowerError: one of them has another layout than the graph was compiled for.
        """
        values: list[Tensor | None] = [*given, *[None] * (len(self._place) - len(given))]
        try:
            with torch.no_grad(), _without_autocast(given):
                for step in self.steps:
                    results = step.call(*[values[place] for place in step.takes])
                    for place, result in zip(step.gives, results, strict=True):
                        values[place] = result
                    del results
                    for place in step.frees:
                        values[place] = None
                return [laid_out(values[place], strides) for place, strides in self._results]
        except AssertionError as error:  # what compiled code raises for another layout
            raise LowerError(self._mismatch(given)) from error

    def _mismatch(self, given: Sequence[Tensor]) -> str:
        for name, form, tensor in zip(self._names, self.inputs, given, strict=True):
            if (tuple(tensor.shape), tensor.stride()) != (form.shape, form.strides):
                return (
                    f"{self.label!r} was compiled for %{name} of shape {list(form.shape)} and "
                    f"strides {list(form.strides)}, but is called with {list(tensor.shape)} and "
                    f"{list(tensor.stride())}; compile the model for this layout."
                )
        return f"{self.label!r}: a segment refused what another gave it; choose lowering 'eager'."


def form_of(value: Tensor, strides: Strides | None = None) -> Form:
    """What a value of a graph looks like, with its own strides or with others."""
    shape = tuple(int(side) for side in value.shape)
    return Form(shape, value.stride() if strides is None else strides, value.dtype, value.device)


def laid_out(tensor: Tensor | None, strides: Strides) -> Tensor:
    """A tensor with these strides: itself where it has them, else a copy."""
    if tensor is None:
        raise LowerError("a result of the graph was never computed.")
    if tensor.stride() == strides:
        return tensor
    fresh = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)
    return fresh.copy_(tensor)


def _without_autocast(given: Sequence[Tensor]) -> torch.autocast | nullcontext[None]:
    """The casts of an autocast are in the graph; around it they would be made twice."""
    device = given[0].device.type if given else "cpu"
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
