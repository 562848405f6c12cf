"""Without a session: the calls themselves tell which step each one is.

The first complete run computes everything and shows the noise levels; they make a plan for the
runs after it. What cannot be told is computed in full, and an event says why. A run that is given
up and taken up again by another at the very next step cannot be told apart: open a session there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .engine_shelf import CallCounts, EngineShelf
from .errors import SessionError
from .events import Events
from .execution import Execution
from .plan import Plan
from .plan_source import PlanSource, Schedule
from .run_watch import RunWatch
from .signature import Signature
from .variant_key import VariantKey

_STREAM = "main"


class BareRuns:
    """What one thread's calls of a denoiser have shown so far.

    Args:
        signature: of the denoiser.
        given: a preset's name or a plan.
        watch: tells the steps.
        source: makes the source of a plan for a schedule.
        shelf: the denoiser's engines.
        strict: whether a call that cannot follow the plan is an error.
    """

    def __init__(
        self,
        signature: Signature,
        given: str | Plan,
        watch: RunWatch,
        source: Callable[[Schedule], PlanSource],
        shelf: EngineShelf,
        *,
        strict: bool,
    ) -> None:
        self.counts, self.events = CallCounts(), Events()
        self.execution: Execution | None = None
        self._signature = signature
        self._watch = watch
        self._source = source
        self._shelf = shelf
        self._strict = strict
        self._full = VariantKey((), (), given.exact if isinstance(given, Plan) else given != "none")
        self._needs_levels = given not in ("none", "exact")
        self._schedule: Schedule | None = None  # the one that the execution follows
        self._conditioning: list[Tensor] = []
        self._calls = 0  # of the run

    def call(self, args: Sequence[Tensor]) -> Sequence[Tensor]:
        """Runs one call.

        Args:
            args: all flat arguments, in the signature's order.

        Raises:
            SessionError: in strict mode, where the call cannot follow the plan.
        """
        step = self._tell_step(args) if self._needs_levels else None
        if self.execution is None or step is None:
            # Everything, reading and writing no slot.
            engine = self._shelf.get(self._full)
            return self.counts.call(self._full.name, engine, args, (), ())[0]
        self._compare_conditioning(step, args)
        return self.execution.run(_STREAM, step, args)

    def _tell_step(self, args: Sequence[Tensor]) -> int | None:
        level = self._read_level(args)
        if level is None:
            self._watch.forget()
            return None
        sighting = self._watch.see(level)
        if sighting.begins:
            self._begin_run()
        if sighting.lost is not None:
            self._depart(*sighting.lost)
        return sighting.step

    def _read_level(self, args: Sequence[Tensor]) -> float | None:
        index = self._signature.level
        if index is None:
            self._depart(
                "no-level", "no input is the noise level, so no step can be told", once=True
            )
            return None
        self.events.add_once(
            "sync",
            "the noise level is read at each call, which waits for the device; "
            "open turbo4d.session and say the steps.",
        )
        # Guidance branches and frames each have a copy of the one level.
        lowest, highest = torch.aminmax(args[index].detach().cpu())
        if lowest != highest:
            name = self._signature.names[index]
            self._depart("mixed-levels", f"input {name!r} holds several noise levels", once=True)
            return None
        return float(lowest)

    def _begin_run(self) -> None:
        self._conditioning = []
        if self._watch.schedule is not self._schedule:
            self._schedule = self._watch.schedule
            self.execution = self._execution(self._schedule) if self._schedule else None
        elif self.execution is not None:
            self.execution.begin(_STREAM)

    def _execution(self, schedule: Schedule) -> Execution:
        return Execution(
            self._source(schedule), self._shelf, self.counts, self.events, strict=self._strict
        )

    def _compare_conditioning(self, step: int, args: Sequence[Tensor]) -> None:
        indices = self._signature.conditioning
        given = [args[index] for index in indices]
        if self._conditioning:
            pairs = zip(indices, self._conditioning, given, strict=True)
            changed = [index for index, old, new in pairs if not _same(old, new)]
            if not changed:
                return
            name = self._signature.names[changed[0]]
            self._depart("new-conditioning", f"conditioning {name!r} changed in a run", step=step)
        # A copy: the caller may write into its tensors between two calls.
        self._conditioning = [tensor.detach().clone() for tensor in given]

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


def _same(old: Tensor, new: Tensor) -> bool:
    alike = old.shape == new.shape and old.dtype == new.dtype and old.device == new.device
    return alike and torch.equal(old, new)
