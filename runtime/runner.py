"""The denoiser as turbo4d runs it: what torch.compile gets back, and what a bundle loads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING
from weakref import WeakSet

from torch import Tensor

from .active import active_sessions
from .adaptive import Bounds, bounds_of
from .bare import BareRuns
from .cuda_graphs import CudaGraphs
from .engine import Engine, Prologue
from .engine_shelf import EngineShelf
from .errors import SessionError
from .events import Event
from .execution import Execution
from .finite_watch import Nonfinite, check_nonfinite
from .gradients import refuse_gradients
from .holding import FREE, Holding
from .levels import LevelUnit, check_levels
from .plan import Plan
from .plan_source import PlanSource, Schedule, read_plan
from .policy import reusable
from .prebuilt import Prebuilt
from .report import Report, report_of
from .run_watch import RunWatch
from .signature import Signature
from .variant_key import VariantKey
from .weights_digest import WeightsDigest

if TYPE_CHECKING:
    from .session import Session


class Runner:
    """A denoiser's flat arguments in, its flat outputs out; picks the engine of each step.

    It holds nothing that changes but its engines, and per thread what calls without a session have
    shown. Outputs share no memory with slots, so a caller may write into them.

    Args:
        signature: of the denoiser.
        engines: builds the engine of a variant; called once per variant.
        plan: a preset's name, a plan or its file.
        levels: the noise level of each step, falling; None to learn them or take the session's.
        level_unit: of the levels, None to infer it.
        use: kinds of regions that a preset may reuse, None for core, level and chain.
        strict: whether a step that cannot follow the plan is an error instead of an event.
        max_cache_bytes: bound on all slots together; the prologue's values are not slots.
        prologue: builds what gives exact variants the values that depend on conditioning alone;
            called once, None where nothing is hoisted.
        adaptive: bounds of runs that leave the plan where what they measure says so; None: they
            keep to it. A session may say otherwise.
        nonfinite: what is done about slots that hold NaN or infinity: "refresh" computes them anew
            and notes an event, "raise" raises an error, "ignore" does not look. A session may say
            otherwise.
        holding: how slots are held; a session may say otherwise.
        made_with: the options it was compiled with; a session takes two runners of one model and
            equal options for one denoiser, as where torch.compile compiles a module twice because
            two threads call it first, or because grad mode was switched. None: for no other.
        prebuilt: of a bundle, the engines that there are. Its weights are in its engines, so its
            calls show none, and only a session that was opened on it is its own.
        notes: why engines are other than they could be on another machine; true of every run.

    Raises:
        OptionError: where an option is unknown or matches nothing.
        PlanError: where the plan does not fit the denoiser, or the levels are no schedule.
    """

    def __init__(
        self,
        signature: Signature,
        engines: Callable[[VariantKey], Engine],
        *,
        plan: str | os.PathLike[str] | Plan = "balanced",
        levels: Sequence[float] | Tensor | None = None,
        level_unit: LevelUnit | None = None,
        use: Collection[str] | None = None,
        strict: bool = False,
        max_cache_bytes: int | None = None,
        prologue: Callable[[], Prologue] | None = None,
        nonfinite: Nonfinite = "refresh",
        adaptive: Bounds | None = None,
        holding: Holding = FREE,
        made_with: object = None,
        prebuilt: Prebuilt | None = None,
        notes: Callable[[], Sequence[Event]] = tuple,
    ) -> None:
        self.signature = signature
        self.prebuilt = prebuilt
        self._made_notes = notes
        self._made_with = made_with
        self._plan = read_plan(plan)
        self._schedule = (
            None if levels is None else Schedule.of(levels, level_unit, plan=self._plan)
        )
        self._level_unit: LevelUnit | None = level_unit
        self._use = use
        self._strict = strict
        self._max_cache_bytes = max_cache_bytes
        check_nonfinite(nonfinite)
        self._nonfinite: Nonfinite = nonfinite
        self._adaptive = adaptive
        self._holding = holding
        self._shelf = EngineShelf(engines, prologue)
        self._graphs = CudaGraphs(self._shelf, signature.kinds, strict=strict)
        self._weight_count = signature.weight_count
        self._digest = WeightsDigest(signature.names[: self._weight_count])
        self._first_input = len(signature.kinds) - signature.kinds.count("input")
        self._input_names = signature.names[self._first_input :]
        self._threads = threading.local()
        self._check()
        _RUNNERS.add(self)

    def __call__(self, *args: Tensor) -> Sequence[Tensor]:
        """Runs one call: in the session that is open on this denoiser, else by what levels tell.

        Args:
            *args: all flat arguments, in the order of `signature.names`.

        Returns:
            The model's flat outputs.

        Raises:
            SessionError: where the call does not fit the session, or, if strict, the plan.
            Turbo4DError: where an input requires grad and grad mode is on.
        """
        refuse_gradients(self._input_names, args[self._first_input :])
        for session in active_sessions():
            execution = session.bind(self, args[: self._weight_count])
            if execution is not None:
                return session.call(execution, args)
        return self._bare.call(args)

    def stands_for(self, other: Runner) -> bool:
        """Whether the other's calls may run here: the same graph, compiled with equal options."""
        return self is other or (
            self._made_with is not None
            and self._made_with == other._made_with
            and self.signature == other.signature
        )

    def report(self) -> Report:
        """What ran in this thread outside sessions, as JSON takes it."""
        bare = self._bare
        executions = [] if bare.execution is None else [bare.execution]
        return report_of(
            bare.counts.by_variant,
            bare.events,
            executions,
            weights_bytes=self.signature.weights_bytes,
            prologue_bytes=bare.full.prologue_bytes,
            notes=self.notes,
        )

    @property
    def notes(self) -> Sequence[Event]:
        """What is true of every run.

        Engines of a bundle that were opened otherwise than built; those that another machine would
        run faster; those that cannot be recorded.
        """
        found = [] if self.prebuilt is None else [*self.prebuilt.notes()]
        return [*found, *self._made_notes(), *self._graphs.notes]

    @property
    def engines_built(self) -> int:
        """How many engines were built so far, the prologue among them."""
        return self._shelf.built

    @property
    def plan(self) -> Plan | None:
        """The plan that calls of this thread outside sessions follow, None while there is none."""
        execution = self._bare.execution
        return None if execution is None else execution.plan

    def start(self, session: Session, weights: Sequence[Tensor]) -> Execution:
        """What carries out the session's plan on this denoiser.

        Args:
            session: that called it.
            weights: it was called with; none are held.
        """
        given = session.given_plan or self._plan
        schedule = session.schedule or self._schedule
        if session.schedule is not None and session.level_unit is None:
            schedule = Schedule.of(session.schedule.levels, None, session.steps, given)
        planned = given.steps if isinstance(given, Plan) else schedule and len(schedule.levels)
        if None not in (session.steps, planned) and session.steps != planned:
            raise SessionError(
                f"session: steps is {session.steps}; the plan and levels that the denoiser was "
                f"compiled with have {planned}."
            )
        holding = session.holding(self._holding)
        adaptive = self._adaptive if session.adaptive is None else bounds_of(session.adaptive)
        return Execution(
            PlanSource(
                given,
                self.signature,
                schedule,
                self._use,
                self._max_cache_bytes,
                session.declared,
                holding.offload,
                adaptive is not None,
                self.prebuilt,
                self._digest.of(weights) if weights else None,
            ),
            self._shelf_of(holding),
            session.counts,
            session.events,
            strict=self._strict,
            debug=os.environ.get("TURBO4D_DEBUG") == "1",
            nonfinite=session.nonfinite or self._nonfinite,
            adaptive=adaptive,
            holding=holding,
        )

    def _source(self, schedule: Schedule | None, weights: Sequence[Tensor] = ()) -> PlanSource:
        return PlanSource(
            self._plan,
            self.signature,
            schedule,
            self._use,
            self._max_cache_bytes,
            offload=self._holding.offload,
            adaptive=self._adaptive is not None,
            prebuilt=self.prebuilt,
            digest=self._digest.of(weights) if weights else None,
        )

    @property
    def bare(self) -> BareRuns | None:
        """What this thread's calls outside sessions have shown, None where there were none."""
        return getattr(self._threads, "bare", None)

    @property
    def _bare(self) -> BareRuns:
        if not hasattr(self._threads, "bare"):
            schedule = self._schedule
            if isinstance(self._plan, Plan):
                schedule = Schedule(self._plan.levels, self._plan.level_unit)
            self._threads.bare = BareRuns(
                self.signature,
                self._plan,
                RunWatch(schedule, self._level_unit),
                self._source,
                self._shelf_of(self._holding),
                strict=self._strict,
                adaptive=self._adaptive,
                nonfinite=self._nonfinite,
                holding=self._holding,
            )
        bare: BareRuns = self._threads.bare
        return bare

    def _shelf_of(self, holding: Holding) -> EngineShelf:
        """The engines as a run calls them: themselves, or each as a recording of itself."""
        return self._graphs if holding.cuda_graphs else self._shelf

    def _check(self) -> None:
        """Refuses at once what no call could follow."""
        if self._schedule is not None:
            check_levels(self._schedule.levels, self._schedule.unit)
        if self._use is not None:
            reusable(self.signature.regions, self._use)
        if isinstance(self._plan, Plan):
            for stream in self._plan.streams:
                self._source(self._schedule).open(stream)


_RUNNERS: WeakSet[Runner] = WeakSet()


def bare_runs() -> Iterator[tuple[Runner, BareRuns]]:
    """What this thread's calls outside sessions have shown, of every denoiser that is alive."""
    for runner in [*_RUNNERS]:
        if (bare := runner.bare) is not None:
            yield runner, bare
