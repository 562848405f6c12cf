"""One plan being carried out on one denoiser: which engine runs at a step, on which slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from .adaptive import Bounds, Decision
from .cell import Cell
from .engine_shelf import CallCounts, EngineShelf
from .errors import SessionError
from .events import Events
from .finite_watch import Nonfinite
from .fitted import add_sample
from .holding import FREE, Holding
from .lane import Lane, form_text
from .log import say, wants
from .opening import Opening
from .plan import Plan
from .plan_source import PlanSource
from .variant_key import VariantKey
from .watches import Watches


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
        adaptive: bounds of a run that leaves the plan's rows where what it measures says so; None
            where it keeps to them.
        nonfinite: what is done about slots that hold NaN or infinity.
        holding: how slots are held.
        watches_conditioning: whether a change of it during a run is looked for; not where the
            caller does.

    Raises:
        OptionError: where slots are to wait on the host in an adaptive run.
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
        adaptive: Bounds | None = None,
        nonfinite: Nonfinite = "refresh",
        holding: Holding = FREE,
        watches_conditioning: bool = True,
    ) -> None:
        self.plan: Plan | None = None
        self.variants: tuple[VariantKey, ...] = ()
        self.cache_peak_bytes = 0
        self.cache_host_bytes = 0
        self.prologue_bytes = 0
        self._source = source
        self._shelf = shelf
        self._counts = counts
        self._events = events
        self._strict = strict
        self._watches = Watches(events, strict, nonfinite)
        self._opening = Opening(
            source, shelf, counts, events, debug=debug, adaptive=adaptive, nonfinite=nonfinite,
            holding=holding, watches_conditioning=watches_conditioning,
        )  # fmt: skip
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
            NonfiniteSlotError: where a slot holds NaN or infinity and the run was told to raise.
            MemoryPlanError: where the slots hold more than the plan's proof says.
        """
        lane = self._lanes.get(stream) or self._open(stream)
        if self._source.signature.piece and step == lane.last:
            return self._again(args)
        cell = lane.cell(step)
        self._check_form(lane, step, args[self._sample])
        self._watches.look_at_conditioning(lane, step, args)
        if lane.steering is not None:
            cell = lane.steering.cell(step)
        self._watches.look_at_slots(lane, step)
        if missing := lane.slots.missing(cell.engine.reads) or lane.short(cell):
            cell = self._rescue(lane, step, missing, cell.live)
        engine = cell.engine
        if lane.steering is None:  # where steps were left out, what only they read
            lane.slots.keep(cell.needed)
        prologue = self._hoisted(lane, args) if engine.key.exact else ()
        slots_in = self._read(lane, step, cell, args)
        if lane.slots.offload:
            lane.fetch(step, cell)
        if wants(2):
            say(2, lane.told(step, cell))
        done = False
        try:
            outputs, slots_out = self._counts.call(cell.name, engine, args, prologue, slots_in)
            del slots_in
            lane.last = step
            if slots_out or lane.slots:
                lane.write(step, cell, slots_out)
                self._count()
                lane.let_go(step, cell)
            done = True
        finally:
            if not done:  # nobody knows what the engine left behind
                lane.drop()
        return outputs

    def begin(self, stream: str | None = None) -> None:
        """Begins a new run of one stream, or of all: nothing of the last one may be read."""
        for name, lane in self._lanes.items():
            if stream in (None, name):
                lane.begin()

    def sample_of(self, args: Sequence[Tensor]) -> Tensor:
        """The noisy latents among all flat arguments."""
        return args[self._sample]

    def leave(self, stream: str, step: int, sample: Tensor) -> None:
        """Drops a stream that goes on in another graph, as where its sample changed its shape."""
        lane = self._lanes.get(stream)
        if lane is None or lane.form is None:
            return
        if lane.slots:
            now = (sample.shape, sample.dtype, sample.device)
            self._events.add(
                "slots-dropped",
                f"torch compiled the model once more; the sample is {form_text(now)} after "
                f"{form_text(lane.form)}.",
                step=step,
                stream=stream,
            )
        lane.drop()
        lane.form = None

    def drop(self, stream: str | None = None) -> None:
        """Drops the slots and the prologue's values of one stream, or of all."""
        for name, lane in self._lanes.items():
            if stream in (None, name):
                lane.drop()

    def settle(self) -> None:
        """Looks at what the last steps wrote; waits for the device where the run was told to raise.

        Raises:
            NonfiniteSlotError: where a slot held NaN or infinity and the run was told to raise.
        """
        for lane in self._lanes.values():
            self._watches.look_at_slots(lane, None)

    def _open(self, stream: str) -> Lane:
        self.plan, check = self._source.open(stream)
        others_bytes = sum(lane.slots.size_bytes() for lane in self._lanes.values())
        lane = self._opening.lane(stream, self.plan, check, others_bytes)
        steering = lane.steering
        self.variants = (
            check.variants
            if steering is None
            else tuple(dict.fromkeys((*self.variants, *steering.variants)))
        )
        self._lanes[stream] = lane
        return lane

    @property
    def decisions(self) -> list[Decision]:
        """What each step of an adaptive run did, and why; by stream, then by step."""
        steerings = [lane.steering for lane in self._lanes.values() if lane.steering is not None]
        return [decision for steering in steerings for decision in steering.decisions]

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
                    f"the sample is {form_text(form)} after {form_text(lane.form)}.",
                    step=step,
                    stream=lane.name,
                )
            lane.drop()
            lane.form = form

    def _again(self, args: Sequence[Tensor]) -> Sequence[Tensor]:
        """A piece that its forward calls twice in a step: the slots are the first call's alone."""
        message = f"piece {self._source.signature.piece!r} ran more than once in a step"
        if self._strict:
            raise SessionError(f"{message}; trace the forward whole, or leave strict off.")
        self._events.add_once(
            "repeated-piece", f"{message}; all its calls but the first were computed in full."
        )
        # Not an exact one: the prologue's values are of the first call's arguments.
        key = VariantKey((), (), exact=False)
        return self._counts.call(key.name, self._shelf.get(key), args, (), ())[0]

    def _rescue(
        self, lane: Lane, step: int, missing: tuple[str, ...], live: Mapping[str, int]
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

    def _read(self, lane: Lane, step: int, cell: Cell, args: Sequence[Tensor]) -> list[Tensor]:
        """What the step's engine takes from the slots, mixed as the plan says."""
        reads, max_age = cell.engine.reads, self.plan.max_age if self.plan else 0
        mixes = self._mixes(lane, step, cell) if cell.orders or cell.fits else None
        found = lane.slots.read(reads, step, max_age, mixes, cell.fits)
        if not cell.fits:
            return found
        constant = self._source.signature.invariant.get(self._sample, ())
        return add_sample(reads, found, cell.fits, args[self._sample], constant)

    def _mixes(self, lane: Lane, step: int, cell: Cell) -> Mapping[str, Sequence[float]]:
        """The weights of what is extrapolated; a slot without enough values is, by fewer."""
        mixes = lane.mixes(step, cell)
        for name, mix in mixes.items():
            wanted = cell.orders.get(name, 0) + 1
            if len(mix) == wanted:
                continue
            message = (
                f"slot {name!r} holds {len(mix)} of the {wanted} values that reuse({wanted - 1}) "
                f"extrapolates at step {step} of stream {lane.name!r}"
            )
            if self._strict:
                raise SessionError(f"{message}; run the steps before it, or leave strict off.")
            self._events.add(
                "lower-order",
                f"{message}; order {len(mix) - 1} was used.",
                step=step,
                stream=lane.name,
            )
        return mixes

    def _count(self) -> None:
        slots = [lane.slots for lane in self._lanes.values()]
        held, stowed = sum(s.size_bytes() for s in slots), sum(s.host_bytes() for s in slots)
        self.cache_peak_bytes = max(self.cache_peak_bytes, held)
        self.cache_host_bytes = max(self.cache_host_bytes, stowed)
