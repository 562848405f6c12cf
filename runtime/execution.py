"""One plan being carried out on one denoiser: which engine runs at a step, on which slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from .adaptive import Bounds, Decision
from .cell import Cell
from .constants import Constants
from .engine_shelf import CallCounts, EngineShelf
from .errors import NonfiniteSlotError, OptionError, SessionError
from .events import Events
from .finite_watch import FiniteWatch, Nonfinite
from .fitted import add_sample
from .held_slots import held_slots
from .holding import FREE, Holding
from .lane import Form, Lane
from .levels import log_sigma
from .log import say, wants
from .plan import Plan
from .plan_check import PlanCheck
from .plan_source import PlanSource
from .prologue_values import PrologueValues
from .steering import Steering
from .variant_key import VariantKey
from .weights_digest import fitted_to_others


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
    ) -> None:
        if holding.offload and adaptive is not None:
            raise OptionError(
                "offload and adaptive are both on; an adaptive run cannot tell what its next step "
                "reads. Leave one off."
            )
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
        self._debug = debug
        self._nonfinite: Nonfinite = nonfinite
        self._adaptive = adaptive
        self._holding = holding
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
        if lane.constants is not None:
            _compare(lane.constants, lane, step, args)
        if lane.steering is not None:
            cell = lane.steering.cell(step)
        self._look_back(lane, step)
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
            say(2, _told(lane, step, cell))
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

    def begin(self, stream: str) -> None:
        """Begins a new run of the stream: nothing of the last one may be read."""
        if lane := self._lanes.get(stream):
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
                f"torch compiled the model once more; the sample is {_text(now)} after "
                f"{_text(lane.form)}.",
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
            self._look_back(lane, None, wait=self._nonfinite == "raise")

    def _look_back(self, lane: Lane, step: int | None, *, wait: bool = False) -> None:
        """Drops the slots that turned out not to be finite, aloud."""
        if lane.watch is None or not (found := lane.watch.found(wait=wait)):
            return
        (name, at), *more = found
        others = f" and {len(more)} more" if more else ""
        message = (
            f"slot {name!r}{others} held NaN or infinity, written at step {at} of stream "
            f"{lane.name!r}"
        )
        if self._strict or self._nonfinite == "raise":
            lane.drop()
            raise NonfiniteSlotError(f"{message}; the model gave them, or its input held them.")
        lane.slots.discard([name for name, at in found if at in lane.slots.steps(name)])
        self._events.add(
            "nonfinite-slot", f"{message}; it is computed anew.", step=step, stream=lane.name
        )

    def _open(self, stream: str) -> Lane:
        plan, check = self._source.open(stream)
        used = {name for key in check.keys[stream] if key is not None for name in key.reads}
        self.plan, steering = plan, None
        self._check_weights(plan)
        if self._adaptive is not None:
            steering = self._steering(plan, check, stream, self._adaptive)
            cells = steering.planned
            self.variants = tuple(dict.fromkeys((*self.variants, *steering.variants)))
        else:
            proof = check.keys, check.live, check.orders, check.fits
            cells = tuple(
                None if key is None else Cell(key.name, self._shelf.get(key), live, orders, fits)
                for key, live, orders, fits in zip(*(of[stream] for of in proof), strict=True)
            )
            self.variants = check.variants
        others = sum(lane.slots.size_bytes() for lane in self._lanes.values())
        slots, bounds = held_slots(plan, check, stream, steering, self._holding, others)
        self._lanes[stream] = Lane(
            stream,
            cells,
            tuple(log_sigma(level, plan.level_unit) for level in plan.levels),
            tuple(sorted(used)),
            PrologueValues(self._shelf, self._counts),
            Constants(self._source.signature) if self._debug else None,
            slots,
            bounds,
            None if self._nonfinite == "ignore" else FiniteWatch(),
            steering=steering,
        )
        return self._lanes[stream]

    def _check_weights(self, plan: Plan) -> None:
        """Notes that a fitted plan is another network's; reads the weights, once for a denoiser."""
        digest = self._source.digest
        if digest is None:
            return
        if said := fitted_to_others(plan.name, plan.weights_sha256, digest):
            self._events.add_once("other-weights", said)

    def _steering(self, plan: Plan, check: PlanCheck, stream: str, bounds: Bounds) -> Steering:
        regions = self._source.signature.regions
        steering = Steering(plan, check, stream, regions, self._shelf.get, bounds)
        if steering.watched is None:
            self._events.add_once(
                "adaptive-blind",
                f"plan {plan.name!r} keeps no slot of the core, whose change would tell how this "
                "scene differs from a typical one; the run follows the plan.",
            )
        return steering

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
                    f"the sample is {_text(form)} after {_text(lane.form)}.",
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
