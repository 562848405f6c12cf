"""Without a session: the calls themselves tell which step each one is.

The first complete run computes everything and shows the noise levels; they make a plan for the
runs after it. What cannot be told is computed in full, and an event says why. A run that is given
up and taken up again by another at the very next step cannot be told apart: open a session there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from .adaptive import Bounds
from .constants import Constants
from .engine_shelf import CallCounts, EngineShelf
from .errors import SessionError
from .events import Events
from .execution import Execution
from .fed_level import read_level
from .finite_watch import Nonfinite
from .full_calls import FullCalls
from .gradients import note_weights
from .holding import FREE, Holding
from .plan import Plan
from .plan_source import PlanSource, Schedule
from .run_watch import RunWatch, Sighting
from .signature import Signature

_STREAM = "main"


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
        self._schedule: Schedule | None = None  # the one that the execution follows
        self._constants = Constants(signature)
        self._looked = False  # at the weights

    def call(self, args: Sequence[Tensor]) -> Sequence[Tensor]:
        """Runs one call.

        Args:
            args: all flat arguments, in the signature's order.

        Raises:
            SessionError: in strict mode, where the call cannot follow the plan.
        """
        if not self._looked:
            self._looked = True
            note_weights(args[: self._signature.weight_count], self.events)
        if not self._needs_steps:
            in_run = self.full.takes_prologue and self._watch_runs(args)
            return self.full.call(args, in_run=in_run)
        sighting = self._see(args)
        if self.execution is None or sighting is None or sighting.step is None:
            return self.full.call(args, in_run=sighting is not None)
        self._compare(sighting.step, args)
        return self.execution.run(_STREAM, sighting.step, args)

    def _see(self, args: Sequence[Tensor]) -> Sighting | None:
        """What the call is by its level; None where it has none, which is said."""
        level = self._read_level(args)
        if isinstance(level, tuple):
            self._watch.forget()
            self._depart(*level, once=True)
            return None
        sighting = self._watch.see(level)
        if sighting.begins:
            self._begin_run(args)
        if sighting.lost is not None:
            self._depart(*sighting.lost)
        return sighting

    def _watch_runs(self, args: Sequence[Tensor]) -> bool:
        """Begins a run where one begins; gives whether runs can be told."""
        level = self._read_level(args)
        if isinstance(level, tuple):
            self._watch.forget()
            return False
        if self._watch.see(level).begins:
            self.full.begin()
        return True

    def _read_level(self, args: Sequence[Tensor]) -> float | tuple[str, str]:
        if self._signature.level is not None:
            self.events.add_once(
                "sync",
                "the noise level is read at each call, which waits for the device; "
                "open turbo4d.session and say the steps.",
            )
        return read_level(self._signature, args)

    def _begin_run(self, args: Sequence[Tensor]) -> None:
        self._constants.forget()
        self.full.begin()
        if self._watch.schedule is not self._schedule:
            self._schedule = self._watch.schedule
            self.execution = self._execution(self._schedule, args) if self._schedule else None
        elif self.execution is not None:
            self.execution.begin(_STREAM)

    def _execution(self, schedule: Schedule, args: Sequence[Tensor]) -> Execution:
        return Execution(
            self._source(schedule, args[: self._signature.weight_count]),
            self._shelf,
            self.counts,
            self.events,
            strict=self._strict,
            adaptive=self._adaptive,
            nonfinite=self._nonfinite,
            holding=self._holding,
        )

    def _compare(self, step: int, args: Sequence[Tensor]) -> None:
        if (change := self._constants.change(args)) is not None:
            kind = "new-weights" if change.kind == "weight" else "new-conditioning"
            self._depart(kind, f"{change.what} changed in a run", step=step)
        if change is not None or not self._constants.kept:
            self._constants.keep(args)

    def _depart(
        self, kind: str, message: str, *, step: int | None = None, once: bool = False
    ) -> None:
        """Gives up the plan for this call, aloud."""
        if self._strict:
            raise SessionError(f"strict: {message}.")
        if self.execution is not None:
            self.execution.drop(_STREAM)
        if once:
            self.events.add_once(kind, f"{message}; everything is computed.")
        else:
            self.events.add(kind, f"{message}; its slots were dropped.", step=step, stream=_STREAM)
