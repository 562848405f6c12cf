"""Without a session: the calls themselves tell which step each one is.

The first complete run computes everything and shows the noise levels; they make a plan for the
runs after it. Guidance branches that are called one by one are streams. What cannot be told is
computed in full, and an event says why. A run that is given up and taken up again by another at the
very next step cannot be told apart: open a session there.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from .adaptive import Bounds
from .constants import Change
from .engine_shelf import CallCounts, EngineShelf
from .errors import SessionError
from .events import Events
from .execution import Execution
from .fed_level import read_level
from .finite_watch import Nonfinite
from .full_calls import FullCalls
from .gradients import note_weights
from .guidance_branches import MOST, GuidanceBranches, Told
from .holding import FREE, Holding
from .log import say
from .plan import Plan
from .plan_source import PlanSource, Schedule
from .run_watch import RunWatch, Sighting
from .signature import Signature

_STREAM = "main"
_MOST = 8  # schedules that have their plan ready


class BareRuns:
    """What one thread's calls of a denoiser have shown so far.

    Args:
        signature: of the denoiser.
        given: a preset's name or a plan.
        watch: tells the steps.
        source: makes the source of a plan for a schedule and the weights of a call.
        shelf: the denoiser's engines.
        strict: whether a call that cannot follow the plan is an error.
        adaptive: bounds of adaptive runs, None where runs keep to the plan.
        nonfinite: what is done about slots that hold NaN or infinity.
        holding: how slots are held.
    """

    def __init__(
        self,
        signature: Signature,
        given: str | Plan,
        watch: RunWatch,
        source: Callable[[Schedule, Sequence[Tensor]], PlanSource],
        shelf: EngineShelf,
        *,
        strict: bool,
        adaptive: Bounds | None = None,
        nonfinite: Nonfinite = "refresh",
        holding: Holding = FREE,
    ) -> None:
        self.counts, self.events = CallCounts(), Events()
        self.execution: Execution | None = None
        self._signature = signature
        self._given = given
        self._watch = watch
        self._source = source
        self._shelf = shelf
        self._strict = strict
        self._adaptive = adaptive
        self._nonfinite: Nonfinite = nonfinite
        self._holding = holding
        exact = given.exact if isinstance(given, Plan) else given != "none"
        self.full = FullCalls(signature, shelf, self.counts, self.events, exact=exact)
        self._needs_steps = given not in ("none", "exact")
        self._executions: dict[Schedule, Execution] = {}
        self._branches = GuidanceBranches(signature)
        self._looked = False  # at the weights
        self._weights: list[weakref.ref[Tensor]] = []  # of the first call; none are held

    def call(self, args: Sequence[Tensor]) -> Sequence[Tensor]:
        """Runs one call.

        Args:
            args: all flat arguments, in the signature's order.

        Raises:
            SessionError: in strict mode, where the call cannot follow the plan.
        """
        if not self._looked:
            self._looked = True
            weights = args[: self._signature.weight_count]
            self._weights = [weakref.ref(weight) for weight in weights]
            note_weights(weights, self.events)
        if not self._needs_steps and not self.full.takes_prologue:
            return self.full.call(args)
        found = self._see(args)
        if found is None:
            return self.full.call(args)
        sighting, told = found
        if self.execution is None or sighting.step is None or told.branch is None:
            return self.full.call(args, None if told.branch is None else told)
        stream = self._stream(told.branch, sighting.step)
        if stream is None:
            return self.full.call(args, told)
        if told.change is not None:
            self._note_change(told.change, sighting.step, stream)
        return self.execution.run(stream, sighting.step, args)

    @property
    def weights(self) -> list[Tensor]:
        """Of the first call, those that are still alive."""
        return [weight for ref in self._weights if (weight := ref()) is not None]

    def _see(self, args: Sequence[Tensor]) -> tuple[Sighting, Told] | None:
        """What the call is by its level and contents; None where it has no level."""
        level = self._read_level(args)
        if isinstance(level, tuple):
            self._watch.forget()
            if self._needs_steps:
                self._depart(*level, once=True)
            return None
        sighting = self._watch.see(level)
        if sighting.begins:
            self._begin_run(args)
        elif sighting.step is not None:
            self._follow(args)
        twice = sighting.repeated and self._watch.twice
        told = self._branches.tell(args, repeated=sighting.repeated, twice=twice)
        if told.branch is None:
            sighting = self._watch.cannot_tell()
            if sighting.begins:
                self._begin_run(args)
                told = self._branches.tell(args, repeated=False)
        if sighting.lost is not None and self._needs_steps:
            self._depart(*sighting.lost)
        return sighting, told

    def _read_level(self, args: Sequence[Tensor]) -> float | tuple[str, str]:
        if self._signature.level is not None:
            self.events.add_once(
                "sync",
                "the noise level is read at each call, which waits for the device; "
                "open turbo4d.session and say the steps.",
            )
        return read_level(self._signature, args)

    def _begin_run(self, args: Sequence[Tensor]) -> None:
        self._branches.begin()
        self.full.begin()
        self._follow(args)
        if self.execution is not None:
            self.execution.begin()

    def _follow(self, args: Sequence[Tensor]) -> None:
        """Takes up the schedule that the run follows, with slots of its own."""
        schedule = self._watch.schedule
        if schedule is None or not self._needs_steps:
            return
        if schedule not in self._executions:
            if len(self._executions) == _MOST:
                del self._executions[next(iter(self._executions))]
            self._executions[schedule] = self._execution(schedule, args)
        if self.execution is not self._executions[schedule]:
            if self.execution is not None:
                self.execution.drop()
            self.execution = self._executions[schedule]
            self.execution.begin()

    def _execution(self, schedule: Schedule, args: Sequence[Tensor]) -> Execution:
        plan = self._given.name if isinstance(self._given, Plan) else self._given
        say(1, f"runs of {len(schedule.levels)} levels ({schedule.unit}) follow plan {plan!r}.")
        # A solver of second order feeds its second sample at every level but the first.
        late = {_name(branch): range(1, len(schedule.levels)) for branch in range(MOST, 2 * MOST)}
        source = self._source(schedule, args[: self._signature.weight_count])
        return Execution(
            replace(source, declared=late),
            self._shelf,
            self.counts,
            self.events,
            strict=self._strict,
            adaptive=self._adaptive,
            nonfinite=self._nonfinite,
            holding=self._holding,
        )

    def _stream(self, branch: int, step: int) -> str | None:
        """The plan's stream for a branch; None, which is said, where it has none at the step."""
        if not isinstance(self._given, Plan):
            return _name(branch)
        streams = [*self._given.streams]
        if branch < len(streams) and self._given.streams[streams[branch]][step] is not None:
            return streams[branch]
        message = (
            f"guidance branch {branch} has no row at step {step} of plan {self._given.name!r}, "
            f"which has {'stream' if len(streams) == 1 else 'streams'} "
            f"{', '.join(map(repr, streams))}"
        )
        if self._strict:
            raise SessionError(f"strict: {message}.")
        self.events.add_once("no-stream", f"{message}; such calls are computed in full.")
        return None

    def _note_change(self, change: Change, step: int, stream: str) -> None:
        kind = "new-weights" if change.kind == "weight" else "new-conditioning"
        self._depart(kind, f"{change.what} changed in a run", step=step, stream=stream)

    def _depart(
        self,
        kind: str,
        message: str,
        *,
        step: int | None = None,
        stream: str | None = None,
        once: bool = False,
    ) -> None:
        """Gives up the plan for this call, aloud; of one stream, or of all."""
        if self._strict:
            raise SessionError(f"strict: {message}.")
        if self.execution is not None:
            self.execution.drop(stream)
        if once:
            self.events.add_once(kind, f"{message}; everything is computed.")
        else:
            self.events.add(kind, f"{message}; its slots were dropped.", step=step, stream=stream)


def _name(branch: int) -> str:
    """Of a branch's stream under a preset."""
    return _STREAM if branch == 0 else f"branch-{branch}"
