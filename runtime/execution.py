"""One plan being carried out on one denoiser: which engine runs at a step, on which slots."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .constants import Constants
from .engine_shelf import CallCounts, EngineShelf
from .errors import SessionError
from .events import Events
from .lane import Cell, Form, Lane
from .log import say, wants
from .plan import Plan
from .plan_source import PlanSource
from .prologue_values import PrologueValues
from .variant_key import VariantKey


class Execution:
    """Carries out a plan; one per session (or thread) and denoiser.

    Args:
        source: of the plan.
        shelf: the denoiser's engines.
        counts: where calls are counted.
        events: where departures from the plan are noted.
        strict: whether a departure is an error.
        debug: whether what the run takes for constant is compared at every call, which waits for
            the device.
    """

    def __init__(
        self,
        source: PlanSource,
        shelf: EngineShelf,
        counts: CallCounts,
        events: Events,
        *,
        strict: bool,
        debug: bool = False,
    ) -> None:
        self.plan: Plan | None = None
        self.variants: tuple[VariantKey, ...] = ()
        self.cache_peak_bytes = 0
        self.prologue_bytes = 0
        self._source = source
        self._shelf = shelf
        self._counts = counts
        self._events = events
        self._strict = strict
        self._debug = debug
        self._sample = source.signature.sample
        self._lanes: dict[str, Lane] = {}

    def run(self, stream: str, step: int, args: Sequence[Tensor]) -> Sequence[Tensor]:
        """Runs one step of one stream.

        Args:
            stream: opened when it is first named.
            step: of the plan.
            args: all flat arguments, in the signature's order.

        Raises:
            PlanError: where the stream cannot be planned.
            SessionError: where the plan has no such step, or it was run already; in debug mode,
                where what the run takes for constant has changed.
            StaleSlotError: where a slot is older than the plan allows, a step having been left out.
        """
        lane = self._lanes.get(stream) or self._open(stream)
        cell = lane.cell(step)
        self._check_form(lane, step, args[self._sample])
        if lane.constants is not None:
            _compare(lane.constants, lane, step, args)
        if missing := lane.slots.missing(cell.engine.reads):
            cell = self._rescue(lane, step, missing, cell.live)
        engine = cell.engine
        prologue = self._hoisted(lane, args) if engine.key.exact else ()
        max_age = self.plan.max_age if self.plan else 0
        slots_in = lane.slots.read(engine.reads, step, max_age)
        if wants(2):
            say(2, _told(lane, step, cell))
        done = False
        try:
            outputs, slots_out = self._counts.call(cell.name, engine, args, prologue, slots_in)
            done = True
        finally:
            if not done:  # nobody knows what the engine left behind
                lane.drop()
        del slots_in
        lane.last = step
        if slots_out or lane.slots:
            lane.slots.write(engine.writes, slots_out, step)
            self._note_peak(lane, cell)
        return outputs

    def begin(self, stream: str) -> None:
        """Begins a new run of the stream: nothing of the last one may be read."""
        if lane := self._lanes.get(stream):
            lane.begin()

    def drop(self, stream: str | None = None) -> None:
        """Drops the slots and the prologue's values of one stream, or of all."""
        for name, lane in self._lanes.items():
            if stream in (None, name):
                lane.drop()

    def _open(self, stream: str) -> Lane:
        plan, check = self._source.open(stream)
        used = {name for key in check.keys[stream] if key is not None for name in key.reads}
        cells = tuple(
            None if key is None else Cell(key.name, self._shelf.get(key), live)
            for key, live in zip(check.keys[stream], check.live[stream], strict=True)
        )
        self.plan, self.variants = plan, check.variants
        self._lanes[stream] = Lane(
            stream,
            cells,
            tuple(sorted(used)),
            PrologueValues(self._shelf, self._counts),
            Constants(self._source.signature) if self._debug else None,
        )
        return self._lanes[stream]

    def _hoisted(self, lane: Lane, args: Sequence[Tensor]) -> tuple[Tensor, ...]:
        values = lane.prologue.get(args)
        held = sum(each.prologue.size_bytes for each in self._lanes.values())
        self.prologue_bytes = max(self.prologue_bytes, held)
        return values

    def _check_form(self, lane: Lane, step: int, sample: Tensor) -> None:
        form = (sample.shape, sample.dtype, sample.device)
        if form != lane.form:
            if lane.slots and lane.form is not None:
                self._events.add(
                    "slots-dropped",
                    f"the sample is {_text(form)} after {_text(lane.form)}.",
                    step=step,
                    stream=lane.name,
                )
            lane.drop()
            lane.form = form

    def _rescue(
        self, lane: Lane, step: int, missing: tuple[str, ...], live: frozenset[str]
    ) -> Cell:
        """The full variant, which computes everything and fills every slot of the stream."""
        message = f"slot {missing[0]!r} holds nothing at step {step} of stream {lane.name!r}"
        if self._strict:
            raise SessionError(f"{message}; run the steps before it, or leave strict off.")
        self._events.add(
            "full-variant", f"{message}; everything was computed.", step=step, stream=lane.name
        )
        key = VariantKey((), lane.used, self.plan.exact if self.plan else True)
        return Cell(key.name, self._shelf.get(key), live)

    def _note_peak(self, lane: Lane, cell: Cell) -> None:
        # What the step read is still held beside what it wrote; what no later step reads is not.
        lane.slots.keep({*cell.live, *cell.engine.reads})
        held = sum(each.slots.size_bytes() for each in self._lanes.values())
        self.cache_peak_bytes = max(self.cache_peak_bytes, held)
        lane.slots.keep(cell.live)


def _compare(constants: Constants, lane: Lane, step: int, args: Sequence[Tensor]) -> None:
    """Refuses a call whose conditioning is not that of the run's first call."""
    if not constants.kept:
        constants.keep(args)
    elif (change := constants.change(args)) is not None:
        otherwise = {
            "conditioning": f", or compile with invariant={{{change.name!r}: False}} where it "
            "changes at every step",
            "channels": f", or compile without them in invariant[{change.name!r}] where they "
            "change at every step",
        }.get(change.kind, "")
        raise SessionError(
            f"step {step} of stream {lane.name!r}: {change.what} changed since the run's first "
            "call; a session takes it to stay the same. Call run.new_conditioning() before the "
            f"step{otherwise}."
        )


def _told(lane: Lane, step: int, cell: Cell) -> str:
    ages = lane.slots.ages(cell.engine.reads, step)
    reads = ", ".join(f"{name} ({age} steps old)" for name, age in sorted(ages.items()))
    writes = ", ".join(sorted({*cell.engine.writes}))
    return (
        f"step {step} of stream {lane.name!r}: {cell.name}; reads {reads or 'no slot'}; "
        f"writes {writes or 'none'}."
    )


def _text(form: Form) -> str:
    shape, dtype, device = form
    return f"{tuple(shape)} {str(dtype).removeprefix('torch.')} on {device}"
