"""CUDA graphs: each engine's whole step is recorded once and replayed, one pool for all of them.

An engine runs as it is when a variant is first called, which warms it up; the second call records
it and replays. What a recording reads lies at addresses of its own, into which each call's inputs
are copied; weights are read where they are, and a call with other weights is not replayed. What a
recording gives is copied out, since the next replay of any graph of the pool writes over it.
Nothing waits for the device once all is recorded.

All recordings share one pool of memory: the values inside a step are let go when it ends, so the
largest step's are enough for all. That is right because steps run one after another: a lock keeps
threads apart, and a stream waits for the replay before where that ran on another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .cuda_recorder import Recorder, Recording, cuda_recorder
from .engine import Engine, Prologue
from .engine_shelf import EngineShelf
from .errors import Turbo4DError
from .events import Event
from .log import say
from .static_inputs import StaticInputs, copy_into
from .variant_key import VariantKey


class CudaGraphs(EngineShelf):
    """A denoiser's engines, each of which records itself.

    Args:
        shelf: with the engines as they are; sessions that record none use it itself.
        kinds: of the flat arguments; what is no input stands first and is read where it lies.
        strict: whether an engine that cannot be recorded is an error.
        recorder_of: makes what records, for the device of the first call.

    Attributes:
        weights: how many arguments are no inputs.
        statics: what recordings read.
        lock: held while one of them is recorded or replayed.
    """

    def __init__(
        self,
        shelf: EngineShelf,
        kinds: Sequence[str],
        *,
        strict: bool = False,
        recorder_of: Callable[[torch.device], Recorder] | None = None,
    ) -> None:
        super().__init__(lambda key: GraphedEngine(shelf.get(key), self))
        self._shelf = shelf
        self.weights = len(kinds) - kinds.count("input")
        self.statics = StaticInputs()
        self.lock = threading.RLock()
        self._strict = strict
        self._recorder_of = recorder_of or cuda_recorder
        self._recorder: Recorder | None = None
        self._notes: dict[str, Event] = {}

    @property
    def has_prologue(self) -> bool:
        """As the shelf."""
        return self._shelf.has_prologue

    def prologue(self) -> Prologue | None:
        """As the shelf: it runs once a session, and is not recorded."""
        return self._shelf.prologue()

    def recorder(self, device: torch.device) -> Recorder:
        """What records on a device.

        Raises:
            OptionError: the device has no CUDA graphs.
        """
        if self._recorder is None:
            self._recorder = self._recorder_of(device)
        return self._recorder

    def refuse(self, key: VariantKey, reason: str) -> None:
        """Says that an engine runs as it is.

        Raises:
            Turbo4DError: where that is an error.
        """
        message = (
            f"engine {key.name!r} is not replayed as a CUDA graph: {reason}; it runs as it is."
        )
        if self._strict:
            raise Turbo4DError(message)
        if message not in self._notes:
            self._notes[message] = Event(None, None, "cuda-graph-refused", message)
            say(1, message)

    @property
    def notes(self) -> Sequence[Event]:
        """What runs as it is, and why; each reason once."""
        return tuple(self._notes.values())


@dataclass(frozen=True)
class _Recorded:
    """A recording, and where the weights lay."""

    recording: Recording
    addresses: list[int]


class GraphedEngine:
    """An engine that is replayed from its second call on.

    Args:
        engine: that is recorded.
        graphs: it belongs to.
    """

    def __init__(self, engine: Engine, graphs: CudaGraphs) -> None:
        self.key, self.reads, self.writes = engine.key, engine.reads, engine.writes
        self._engine = engine
        self._graphs = graphs
        self._warm = self._refused = False
        # By where its inputs are copied to: another layout of an input is another recording.
        self._recorded: dict[tuple[int, ...], _Recorded] = {}

    def __call__(
        self, args: Sequence[Tensor], prologue: Sequence[Tensor], slots_in: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """As the engine.

        Raises:
            OptionError: the arguments are on a device without CUDA graphs.
            Turbo4DError: it cannot be recorded, where that is an error.
        """
        graphs = self._graphs
        with graphs.lock, torch.no_grad():
            recorder = graphs.recorder(args[graphs.weights].device)
            if not self._warm or self._refused:
                self._warm = True
                return self._engine(args, prologue, slots_in)
            weights, inputs = args[: graphs.weights], args[graphs.weights :]
            placed = (
                graphs.statics.place("input", range(len(inputs)), inputs),
                graphs.statics.place("prologue", range(len(prologue)), prologue),
                graphs.statics.place("slot", self.reads, slots_in),
            )
            recorded = self._record(recorder, weights, placed)
            if recorded is None:
                return self._engine(args, prologue, slots_in)
            if [*map(Tensor.data_ptr, weights)] != recorded.addresses:
                graphs.refuse(self.key, "a weight lies elsewhere than when it was recorded")
                return self._engine(args, prologue, slots_in)
            recorder.order()
            self._fill(placed, (inputs, prologue, slots_in))
            recorded.recording.replay()
            outputs, slots_out = recorded.recording.results
            found = [each.clone() for each in outputs], [each.clone() for each in slots_out]
            recorder.replayed()
            return found

    def _record(
        self,
        recorder: Recorder,
        weights: Sequence[Tensor],
        placed: tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]],
    ) -> _Recorded | None:
        key = tuple(id(each) for group in placed for each in group)
        if key in self._recorded:
            return self._recorded[key]
        inputs, prologue, slots = placed
        args = (*weights, *inputs)
        try:
            recording = recorder.record(lambda: self._engine(args, prologue, slots))
        except RuntimeError as error:  # torch's own are all of that type
            self._refused = True
            said = next((line for line in str(error).splitlines() if line.strip()), "")
            self._graphs.refuse(self.key, f"{type(error).__name__}: {said.strip().rstrip('.')}")
            return None
        say(1, f"engine {self.key.name!r}: recorded as a CUDA graph.")
        self._recorded[key] = _Recorded(recording, [*map(Tensor.data_ptr, weights)])
        return self._recorded[key]

    def _fill(
        self,
        placed: tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]],
        given: tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]],
    ) -> None:
        """Copies what a call gave to where it is read; the prologue's values where they are new."""
        statics = self._graphs.statics
        for kind, own, now in zip(("input", "prologue", "slot"), placed, given, strict=True):
            if kind == "prologue" and (not now or statics.holds_prologue(own, now)):
                continue
            for each, value in zip(own, now, strict=True):
                copy_into(each, value)
            if kind == "prologue":
                statics.keep_prologue(own, now)
