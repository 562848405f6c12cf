"""One plan being carried out on one denoiser: which engine runs at a step, on which slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .engine import Engine
from .engine_shelf import CallCounts, EngineShelf
from .errors import SessionError
from .events import Events
from .plan import Plan
from .plan_source import PlanSource
from .slots import Slots
from .variant_key import VariantKey

_Form = tuple[torch.Size, torch.dtype, torch.device]


@dataclass(frozen=True)
class _Cell:
    """What one step of one stream needs, found when the plan is resolved."""

    name: str
    engine: Engine
    live: frozenset[str]


@dataclass
class _Lane:
    """One stream: its cells, its slots, and the last step that ran."""

    cells: tuple[_Cell | None, ...]
    used: tuple[str, ...]  # every slot that any of its steps reads
    slots: Slots = field(default_factory=Slots)
    last: int | None = None
    form: _Form | None = None


class Execution:
    """Carries out a plan; one per session (or thread) and denoiser.

    Args:
        source: of the plan.
        shelf: the denoiser's engines.
        counts: where calls are counted.
        events: where departures from the plan are noted.
        strict: whether a departure is an error.
    """

    def __init__(
        self,
        source: PlanSource,
        shelf: EngineShelf,
        counts: CallCounts,
        events: Events,
        *,
        strict: bool,
    ) -> None:
        self.plan: Plan | None = None
        self.variants: tuple[VariantKey, ...] = ()
        self.cache_peak_bytes = 0
        self._source = source
        self._shelf = shelf
        self._counts = counts
        self._events = events
        self._strict = strict
        self._sample = source.signature.sample
        self._lanes: dict[str, _Lane] = {}

    def run(self, stream: str, step: int, args: Sequence[Tensor]) -> Sequence[Tensor]:
        """Runs one step of one stream.

        Args:
            stream: opened when it is first named.
            step: of the plan.
            args: all flat arguments, in the signature's order.

        Raises:
            PlanError: where the stream cannot be planned.
            SessionError: where the plan has no such step, or it was run already.
            StaleSlotError: where a slot is older than the plan allows, a step having been left out.
        """
        lane = self._lanes.get(stream) or self._open(stream)
        cell = self._cell(lane, stream, step)
        self._check_form(lane, stream, step, args[self._sample])
        if missing := lane.slots.missing(cell.engine.reads):
            cell = self._rescue(lane, stream, step, missing, cell.live)
        engine = cell.engine
        max_age = self.plan.max_age if self.plan else 0
        slots_in = lane.slots.read(engine.reads, step, max_age)
        done = False
        try:
            outputs, slots_out = self._counts.call(cell.name, engine, args, (), slots_in)
            done = True
        finally:
            if not done:  # nobody knows what the engine left behind
                lane.slots.drop()
        del slots_in
        lane.last = step
        if slots_out or lane.slots:
            lane.slots.write(engine.writes, slots_out, step)
            self._note_peak(lane, cell)
        return outputs

    def begin(self, stream: str) -> None:
        """Begins a new run of the stream: nothing of the last one may be read."""
        if lane := self._lanes.get(stream):
            lane.slots.drop()
            lane.last = None

    def drop(self, stream: str | None = None) -> None:
        """Drops the slots of one stream, or of all."""
        for name, lane in self._lanes.items():
            if stream in (None, name):
                lane.slots.drop()

    def _open(self, stream: str) -> _Lane:
        plan, check = self._source.open(stream)
        used = {name for key in check.keys[stream] if key is not None for name in key.reads}
        cells = tuple(
            None if key is None else _Cell(key.name, self._shelf.get(key), live)
            for key, live in zip(check.keys[stream], check.live[stream], strict=True)
        )
        self.plan, self.variants = plan, check.variants
        self._lanes[stream] = _Lane(cells, tuple(sorted(used)))
        return self._lanes[stream]

    def _cell(self, lane: _Lane, stream: str, step: int) -> _Cell:
        if step >= len(lane.cells):
            raise SessionError(
                f"step {step} of stream {stream!r}: the plan has {len(lane.cells)} steps, 0 to "
                f"{len(lane.cells) - 1}."
            )
        if step == lane.last:
            raise SessionError(
                f"step {step} of stream {stream!r} ran already; call run.step() before each call, "
                "with a stream of its own for each guidance branch."
            )
        cell = lane.cells[step]
        if cell is None:
            raise SessionError(
                f"step {step} of stream {stream!r}: the plan does not run the stream at this step."
            )
        return cell

    def _check_form(self, lane: _Lane, stream: str, step: int, sample: Tensor) -> None:
        form = (sample.shape, sample.dtype, sample.device)
        if form != lane.form:
            if lane.form is not None and lane.slots:
                self._events.add(
                    "slots-dropped",
                    f"the sample is {_text(form)} after {_text(lane.form)}.",
                    step=step,
                    stream=stream,
                )
                lane.slots.drop()
            lane.form = form

    def _rescue(
        self,
        lane: _Lane,
        stream: str,
        step: int,
        missing: tuple[str, ...],
        live: frozenset[str],
    ) -> _Cell:
        """The full variant, which computes everything and fills every slot of the stream."""
        message = f"slot {missing[0]!r} holds nothing at step {step} of stream {stream!r}"
        if self._strict:
            raise SessionError(f"{message}; run the steps before it, or leave strict off.")
        self._events.add(
            "full-variant", f"{message}; everything was computed.", step=step, stream=stream
        )
        key = VariantKey((), lane.used, self.plan.exact if self.plan else True)
        return _Cell(key.name, self._shelf.get(key), live)

    def _note_peak(self, lane: _Lane, cell: _Cell) -> None:
        # What the step read is still held beside what it wrote; what no later step reads is not.
        lane.slots.keep({*cell.live, *cell.engine.reads})
        held = sum(each.slots.size_bytes() for each in self._lanes.values())
        self.cache_peak_bytes = max(self.cache_peak_bytes, held)
        lane.slots.keep(cell.live)


def _text(form: _Form) -> str:
    shape, dtype, device = form
    return f"{tuple(shape)} {str(dtype).removeprefix('torch.')} on {device}"
