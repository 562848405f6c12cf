"""adaptive: what the next step does, decided while a run goes on.

A plan says what a typical scene needs. Where a slot is computed anew, its change since the step
that computed it before tells how this scene differs: relative change over expected change. What
the scene errs by goes with a power of that. On 12 held-out scenes of nano the two correlate by 0.5
to 0.7 (tools/results/adaptive-nano-v1.json), with powers of 1.5 to 3.8 for four plans. The rows to
come are then loosened, where the scene is quieter than a typical one, or tightened, where it is
livelier, until the run's expected error is again what the plan's is on a typical scene.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypedDict

from .change import Reading
from .errors import OptionError
from .expected_error import row_error
from .rungs import Rung
from .trajectory import expected_change

if TYPE_CHECKING:
    from .region_info import RegionInfo

# How far a scene is taken to differ: beyond it the network is another one than the tables'.
_RANGE = (0.5, 2.0)
# A change that is expected to be smaller than this says nothing: it is rounding, or nothing moved.
_TELLING = 0.01


@dataclass(frozen=True)
class Bounds:
    """What an adaptive run keeps to, whatever it measures; slots' ages are the plan's to bound.

    Args:
        ceiling: the run's expected error, over the plan's own on a typical scene.
        hysteresis: a run whose expected error is within this share of what is allowed keeps to
            the plan's own rows.
        min_refresh: a step that computes everything comes at least every so many; None: as the
            slots' ages want it.
        power: the scene's error goes with this power of its measured change; 0 takes every scene
            for a typical one.
    """

    ceiling: float = 1.0
    hysteresis: float = 0.05
    min_refresh: int | None = None
    power: float = 3.0

    def __post_init__(self) -> None:
        if self.min_refresh is not None and self.min_refresh < 1:
            raise OptionError(f"adaptive: min_refresh is {self.min_refresh}; wanted at least 1.")
        if not 0 < self.ceiling < math.inf:
            raise OptionError(f"adaptive: ceiling is {self.ceiling}; wanted more than 0.")
        if not 0 <= self.hysteresis < 1:
            raise OptionError(f"adaptive: hysteresis is {self.hysteresis}; wanted 0 to 1.")
        if not 0 <= self.power < math.inf:
            raise OptionError(f"adaptive: power is {self.power}; wanted 0 or more.")


def bounds_of(given: bool | Mapping[str, Any]) -> Bounds | None:
    """The bounds that an option gives: False for no adaptive run, True for the usual ones.

    Raises:
        OptionError: where a name is unknown or a value is none that the bound can have.
    """
    if isinstance(given, bool):
        return Bounds() if given else None
    names = sorted(each.name for each in fields(Bounds))
    for name, value in given.items():
        if name not in names:
            raise OptionError(f"adaptive: {name!r} is unknown; choose from {', '.join(names)}.")
        whole = name == "min_refresh"
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            kind = "a whole number" if whole else "a number"
            raise OptionError(f"adaptive: {name} is {value!r}; wanted {kind}.")
    return Bounds(**given)


class Decision(TypedDict):
    """What one step did, and why.

    Fields:
        step: of the stream.
        stream: its name.
        variant: the graph it ran.
        planned: the graph that the plan names there.
        scene: expected error of this scene over a typical one's.
        error: expected of this step.
        reason: a sentence.
    """

    step: int
    stream: str
    variant: str
    planned: str
    scene: float
    error: float
    reason: str


class Scheduler:
    """Decides the steps of one stream.

    Args:
        stream: its name.
        rungs: what a step may do, what skips most first; the last computes everything.
        planned: per step the rung that the plan names, None where the stream does not run.
        sigmas: of the steps.
        regions: of the model.
        max_age: steps a slot may be old.
        bounds: of the run.
        watched: the region whose change is measured, None where no slot tells.
    """

    def __init__(
        self,
        stream: str,
        rungs: Sequence[Rung],
        planned: Sequence[Rung | None],
        sigmas: Sequence[float],
        regions: Sequence[RegionInfo],
        max_age: int,
        bounds: Bounds,
        watched: str | None,
    ) -> None:
        self.watched = watched
        self.decisions: list[Decision] = []
        self._stream = stream
        self._rungs, self._planned = rungs, planned
        self._sigmas = sigmas
        self._regions = {region.name: region for region in regions}
        self._max_age, self._bounds = max_age, bounds
        self.begin()
        self._allowed = bounds.ceiling * (self._expected(planned, 0) or 0.0)

    def begin(self) -> None:
        """Begins a run, or goes on after all slots were dropped: nothing is known of the scene."""
        self._written: dict[str, int] = {}
        self._readings: list[tuple[int, int, Reading]] = []
        self._changes: list[float] = []
        self._spent = 0.0  # expected error so far, of a typical scene
        self._scene = 1.0
        self._refreshed = 0
        self._rows = [*self._planned]

    def decide(self, step: int) -> Rung:
        """What a step does; the plan's row unless what was measured so far says otherwise."""
        own = self._planned[step]
        if own is None:
            raise ValueError(f"stream {self._stream!r} does not run at step {step}")
        if self._listen():
            self._rows[step:] = self._adjusted(step)
        rung, against = self._rows[step] or own, ""
        every = self._bounds.min_refresh
        if every is not None and step - self._refreshed >= every:
            rung, against = self._rungs[-1], f"{every} steps since everything was computed"
        elif self._error(rung, step, self._written) is None:
            # The plan's proof holds for the plan's rows alone, and not after slots were dropped.
            rung, against = self._rungs[-1], "a slot is missing or too old"
        self._note(step, rung, own, against)
        return rung

    def ran(self, step: int, change: Reading | None) -> None:
        """Notes that the step decided last has run, and how the watched slot changed by it."""
        if change is not None and self.watched is not None:
            self._readings.append((self._written[self.watched], step, change))
        rung = self._latest
        self._spent += self._error(rung, step, self._written) or 0.0
        self._written.update(dict.fromkeys(rung.key.writes, step))
        if not rung.row:
            self._refreshed = step

    def _listen(self) -> bool:
        """Takes up what was measured since; gives whether it says anything new of the scene."""
        for first, second, reading in self._readings:
            change = reading.value()
            expected = expected_change(self._sigmas[first], self._sigmas[second])
            if expected >= _TELLING and math.isfinite(change) and change > 0:
                self._changes.append(math.log(change / expected))
        news = bool(self._readings) and bool(self._changes)
        self._readings.clear()
        if news:
            low, high = _RANGE
            self._scene = min(high, max(low, math.exp(self._bounds.power * fmean(self._changes))))
        return news

    def _adjusted(self, step: int) -> list[Rung | None]:
        """The rows from a step on: the plan's, changed until the expected error is as allowed."""
        rows = self._planned[step:]
        beyond = abs(math.log(self._scene / self._bounds.ceiling))
        if beyond <= math.log1p(self._bounds.hysteresis):
            return [*rows]
        allowed = self._allowed / self._scene - self._spent
        expected = self._expected(rows, step)
        tighter = expected is None or expected > allowed
        return self._changed(rows, step, allowed, tighter=tighter)

    def _changed(
        self, rows: Sequence[Rung | None], step: int, allowed: float, *, tighter: bool
    ) -> list[Rung | None]:
        """Changes one row at a time, the one that gives most for what it takes.

        Args:
            rows: from `step` on.
            step: of the first.
            allowed: expected error of them all, on a typical scene.
            tighter: compute more until the error is allowed; else skip more while it is.
        """
        rows, now = [*rows], self._expected(rows, step)
        while not tighter or now is None or now > allowed:
            best: tuple[float, float, list[Rung | None]] | None = None
            for index, row in enumerate(rows):
                for rung in self._rungs:
                    more = row is not None and rung.skipped_flops - row.skipped_flops
                    if not more or (more < 0) != tighter or not rung.allowed(step + index):
                        continue
                    tried = [*rows[:index], rung, *rows[index + 1 :]]
                    error = self._expected(tried, step)
                    if error is None or (not tighter and error > allowed):
                        continue
                    if tighter and now is not None and error >= now:
                        continue
                    worth = (math.inf if now is None else abs(now - error)) / abs(more)
                    if best is None or (worth > best[0] if tighter else worth < best[0]):
                        best = worth, error, tried
            if best is None:
                break
            _, now, rows = best
        return rows

    def _expected(self, rows: Sequence[Rung | None], step: int) -> float | None:
        """Expected error of rows from a step on, of a typical scene; None where one cannot run."""
        written, total = dict(self._written), 0.0
        for at, rung in enumerate(rows, step):
            if rung is None:
                continue
            error = self._error(rung, at, written)
            if error is None:
                return None
            total += error
            written.update(dict.fromkeys(rung.key.writes, at))
        return total

    def _error(self, rung: Rung, step: int, written: Mapping[str, int]) -> float | None:
        """Expected error of a rung at a step; None where a slot is missing or too old."""
        for slot in rung.key.reads:
            source = written.get(slot)
            if source is None or step - source > self._max_age:
                return None
        return row_error(rung.row, written, step, self._sigmas, self._regions)

    def _note(self, step: int, rung: Rung, own: Rung, against: str) -> None:
        self._latest = rung
        if rung is own:
            reason = "as planned"
        else:
            side = "more" if rung.skipped_flops > own.skipped_flops else "less"
            why = against or f"the scene errs {self._scene:.2f} times what a typical one does"
            reason = f"skips {side} than planned: {why}"
        self.decisions.append(
            Decision(
                step=step,
                stream=self._stream,
                variant=rung.key.name,
                planned=own.key.name,
                scene=round(self._scene, 4),
                error=self._scene * (self._error(rung, step, self._written) or 0.0),
                reason=reason,
            )
        )
