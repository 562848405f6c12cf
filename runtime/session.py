"""A session: one sampling run, in which the caller says which step of which stream comes next."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from contextvars import Token
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, SupportsIndex

from torch import Tensor

from .active import ACTIVE
from .adaptive import bounds_of
from .bindings import Bindings
from .engine_shelf import CallCounts
from .errors import OptionError, SessionError
from .events import Events
from .finite_watch import Nonfinite, check_nonfinite
from .gradients import note_weights
from .holding import Holding
from .levels import LevelUnit
from .log import say
from .plan import Plan
from .plan_source import Schedule, read_plan
from .report import Report, report_of, summary
from .step_order import StepOrder

if TYPE_CHECKING:
    from .execution import Execution
    from .runner import Runner


def session(
    fast: object,
    steps: int | None = None,
    levels: Sequence[float] | Tensor | None = None,
    *,
    level_unit: LevelUnit | None = None,
    plan: str | os.PathLike[str] | Plan | None = None,
    streams: Sequence[str] | Mapping[str, Collection[int]] | None = None,
    adaptive: bool | Mapping[str, Any] | None = None,
    nonfinite: Nonfinite | None = None,
    fixed_slots: bool | None = None,
    offload: bool | None = None,
    cuda_graphs: bool | None = None,
) -> Session:
    """Opens a session on a compiled denoiser: `with turbo4d.session(fast, ...) as run:`.

    Inside, `run.step(i)` stands before each call of `fast`, nothing waits for the device, and the
    conditioning of a stream is taken to stay the same until step 0 or `run.new_conditioning()`.

    Args:
        fast: what torch.compile(..., backend="turbo4d") returned, called or not.
        steps: how many there are; may be left out where levels or a plan tell.
        levels: the noise level of each step, falling; the closing zero of a schedule of sigmas
            may stay, one of timesteps is a step unless `steps` says otherwise.
        level_unit: of the levels: "sigma", "log_sigma", "c_noise" (a quarter of that), "timestep",
            "flow" (the share of noise) or "flow_timestep" (a thousand times that); inferred where
            left out.
        plan: a preset's name, a plan or its file, instead of the one `fast` was compiled with.
        streams: names of the streams, or per name the steps at which it runs; a preset takes any
            name, at all steps, where nothing is declared.
        adaptive: True to leave the plan where what the run measures says so, False to keep to it,
            or `adaptive.Bounds` by name; None for what `fast` was compiled with.
        nonfinite: what is done about slots that hold NaN or infinity: "refresh" computes them anew
            and notes an event, "raise" raises an error, at the latest where the session closes,
            "ignore" does not look; None for what `fast` was compiled with.
        fixed_slots: whether each slot has an address that does not move during the session, as CUDA
            graphs and TensorRT want it; what steps write is then copied. None for what `fast` was
            compiled with.
        offload: whether slots that the next step does not read wait on the host, and come back
            while the step before it computes; `max_cache_bytes` then bounds what lies on the
            device. On CUDA alone. None for what `fast` was compiled with.
        cuda_graphs: whether each variant's whole step is recorded as a CUDA graph when it comes the
            second time, and replayed from then on; one that cannot be recorded runs as it is, with
            an event. On CUDA alone. None for what `fast` was compiled with.

    Returns:
        The session, to be entered with `with`.

    Raises:
        OptionError: where an option does not fit the others.
        PlanError: where the plan's file holds none.
    """
    return Session(
        fast,
        steps,
        levels,
        level_unit=level_unit,
        plan=plan,
        streams=streams,
        adaptive=adaptive,
        nonfinite=nonfinite,
        fixed_slots=fixed_slots,
        offload=offload,
        cuda_graphs=cuda_graphs,
    )


class Session:
    """One sampling run; see `session`. Slots live and die with it."""

    def __init__(
        self,
        fast: object,
        steps: int | None,
        levels: Sequence[float] | Tensor | None,
        *,
        level_unit: LevelUnit | None,
        plan: str | os.PathLike[str] | Plan | None,
        streams: Sequence[str] | Mapping[str, Collection[int]] | None,
        adaptive: bool | Mapping[str, Any] | None = None,
        nonfinite: Nonfinite | None = None,
        fixed_slots: bool | None = None,
        offload: bool | None = None,
        cuda_graphs: bool | None = None,
    ) -> None:
        if not callable(fast):
            raise OptionError(f"session: {type(fast).__name__} is no denoiser; it is not callable.")
        self.adaptive = adaptive
        if nonfinite is not None:
            check_nonfinite(nonfinite)
        self.nonfinite: Nonfinite | None = nonfinite
        self._holding = {
            name: given
            for name, given in (
                ("fixed_slots", fixed_slots),
                ("offload", offload),
                ("cuda_graphs", cuda_graphs),
            )
            if given is not None
        }
        if adaptive is not None:
            bounds_of(adaptive)
        self.given_plan = None if plan is None else read_plan(plan)
        planned = steps
        if steps is None and isinstance(self.given_plan, Plan):
            planned = self.given_plan.steps
        self.level_unit: LevelUnit | None = level_unit
        self.schedule = (
            None if levels is None else Schedule.of(levels, level_unit, planned, self.given_plan)
        )
        self.events, self.counts = Events(), CallCounts()
        self.steps = self._count_steps(steps)
        self._entered = False
        self._found = False  # whether any denoiser of the session was called
        self.declared = self._declare(streams)
        self._token: Token[tuple[Session, ...]] | None = None
        self._order = StepOrder(self.steps, self.declared, self.events)
        self._bindings = Bindings(fast)
        self._passed_on: dict[str, bool] = {}  # per graph that ran as it came, whether it is ours

    def _count_steps(self, steps: int | None) -> int | None:
        known = {
            "steps": steps,
            "levels": len(self.schedule.levels) if self.schedule else None,
            "plan": self.given_plan.steps if isinstance(self.given_plan, Plan) else None,
        }
        told = {name: count for name, count in known.items() if count is not None}
        if len(set(told.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in told.items())
            raise OptionError(f"session: the numbers of steps differ: {listed}.")
        count = next(iter(told.values()), None)
        if count is not None and count < 1:
            raise OptionError(f"session: steps is {count}; wanted at least 1.")
        return count

    def _declare(
        self, streams: Sequence[str] | Mapping[str, Collection[int]] | None
    ) -> Mapping[str, Collection[int]] | None:
        if streams is None:
            return None
        if isinstance(streams, Mapping):
            return dict(streams)
        if self.steps is None:
            raise OptionError("session: streams are declared but no steps; give steps or levels.")
        names = [streams] if isinstance(streams, str) else streams
        return dict.fromkeys(names, range(self.steps))

    def __enter__(self) -> Session:
        if self._entered:
            raise SessionError("session: it was entered before; open a new one for each run.")
        self._entered = True
        self._token = ACTIVE.set((self, *ACTIVE.get()))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._token is not None:
            ACTIVE.reset(self._token)
            self._token = None
        try:
            if error is None:
                for execution in self._bindings.executions():
                    execution.settle()
        finally:
            self._bindings.close()
        if error is None and self._order.began and not self._found:
            raise SessionError(
                "session: run.step() was called but no engine ran; "
                'is `fast` what torch.compile(..., backend="turbo4d") returned?'
            )
        self._order.note_idle()
        say(1, f"session: {summary(self.report())}")

    def step(self, step: SupportsIndex, stream: str = "main") -> None:
        """Says which step of which stream the next call is.

        Args:
            step: above the last one of the stream, or 0 to begin a new run of it.
            stream: one independent sequence of steps: a guidance branch, a chunk, a direction.

        Raises:
            SessionError: where the step is out of order or beyond the last.
            PlanError: where the plan has no such stream.
        """
        if self._token is None:
            raise SessionError("run.step(): the session is not open; call it inside `with`.")
        if isinstance(self.given_plan, Plan):
            self.given_plan.rows(stream)
        if self._order.say(step, stream):
            for execution in self._bindings.executions():
                execution.begin(stream)

    def new_conditioning(self, stream: str | None = None) -> None:
        """Says that the conditioning changed: what was cached under the old one is dropped.

        Args:
            stream: whose conditioning, None for all streams.
        """
        for execution in self._bindings.executions():
            execution.drop(stream)

    def report(self) -> Report:
        """What ran, as JSON takes it."""
        return report_of(
            self.counts.by_variant,
            self.events,
            self._bindings.executions(),
            weights_bytes=sum(r.signature.weights_bytes for r in self._bindings.runners()),
            notes=[note for runner in self._bindings.runners() for note in runner.notes],
        )

    @property
    def plan(self) -> Plan | None:
        """The plan being carried out, None before the first call."""
        return next((execution.plan for execution in self._bindings.executions()), None)

    def holding(self, otherwise: Holding) -> Holding:
        """How slots are held, where nothing else was said.

        Raises:
            OptionError: where what was said contradicts the rest.
        """
        return replace(otherwise, **self._holding)

    def bind(self, runner: Runner, weights: tuple[Tensor, ...]) -> Execution | None:
        """What carries out this session's plan on a denoiser; None where it is not `fast`."""
        return self._bindings.bind(runner, weights, self._start)

    def call(self, execution: Execution, args: Sequence[Tensor]) -> Sequence[Tensor]:
        """Runs the step that was said last."""
        step, stream = self._order.now()
        for other in self._bindings.rivals(execution):
            other.leave(stream, step, execution.sample_of(args))
        outputs = execution.run(stream, step, args)
        self._order.done(step, stream)
        return outputs

    def note_passed_on(self, reason: str, weights: Sequence[Tensor]) -> None:
        """Notes once that a graph of this session's denoiser ran as it came.

        Args:
            reason: which graph, and why.
            weights: it was called with; a graph without any may be of another denoiser.
        """
        if reason not in self._passed_on:
            self._passed_on[reason] = self._bindings.owns(weights)
            if self._passed_on[reason]:
                self._found |= bool(weights)
                self.events.add("piece-passed-on", reason)
        if self._passed_on[reason] and self._order.began:
            self._order.done(*self._order.now())

    def _start(self, runner: Runner, weights: tuple[Tensor, ...]) -> Execution:
        self._found = True
        note_weights(weights, self.events)
        return runner.start(self, weights)
