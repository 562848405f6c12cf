"""search: the plan of least predicted time within bounds of error, bytes and variants.

The plans of all budgets follow from one walk over the steps (`paths`), which counts neither bytes
nor variants; where its plan has too many of either, the solver (`solve`) is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from turbo4d.compiler.calibrate.choices import PART, Choice, choices_of
from turbo4d.compiler.calibrate.fronts import Fronts
from turbo4d.compiler.calibrate.moves import row
from turbo4d.compiler.calibrate.slot_sets import SlotSets, peak_bytes, variants_of
from turbo4d.compiler.calibrate.solve import Steps, solve, solver
from turbo4d.compiler.calibrate.state import key
from turbo4d.compiler.errors import CalibrationError
from turbo4d.runtime.plan import Row
from turbo4d.runtime.region_info import RegionInfo

if TYPE_CHECKING:
    from turbo4d.compiler.calibrate.error_table import ErrorTable

# CP-SAT's own measure of work, the same on every machine; some seconds on a slow core.
EFFORT = 4.0
VERSION = 3  # of what is searched: a state's plans of another are not taken
TICK_S = 1e-6  # predicted time is counted in these


@dataclass(frozen=True)
class Limits:
    """What a plan must keep.

    Args:
        max_cache_bytes: of all slots together, None for no bound.
        max_variants: how many graphs it may need.
        max_age: steps that a slot may be old when it is read.
        warmup: how many of the first steps of each stream compute everything.
    """

    max_cache_bytes: int | None
    max_variants: int
    max_age: int
    warmup: int = 1


@dataclass(frozen=True)
class Found:
    """A plan that the search found.

    Args:
        steps: per stream the move and the order of each step that it visits.
        rows: per stream the plan's rows, None where the stream does not run.
        letters: per stream the same as a letter each, a space where it does not run.
        seconds: predicted, of all steps.
        error: predicted, an amplitude.
        proven: whether no plan of these moves is faster within the budget and the limits.
        storage: how its slots are kept.
    """

    steps: Steps
    rows: Mapping[str, tuple[Row, ...]]
    letters: Mapping[str, str]
    seconds: float
    error: float
    proven: bool
    storage: str = "compute"

    @property
    def name(self) -> str:
        """Short, and the same for plans that do the same."""
        return key({stream: [*taken] for stream, taken in self.steps.items()}, self.storage)


def search(
    table: ErrorTable,
    seconds: Mapping[str, float],
    limits: Limits,
    budget: float,
    *,
    regions: Sequence[RegionInfo],
    storage: str = "compute",
) -> Found | None:
    """The fastest plan within a budget; see `Search`, which answers several."""
    return Search(table, seconds, limits, regions, storage).within(budget)


@dataclass
class Search:
    """The plans of one table.

    Args:
        table: what each move adds to the final error.
        seconds: per move, what one step of it takes.
        limits: that every plan must keep.
        regions: of the model.
        storage: how slots are kept.
        size_bytes: per region one value of its slot as it is stored; None: `slot_bytes`.

    Raises:
        CalibrationError: OR-tools is not installed.
    """

    table: ErrorTable
    seconds: Mapping[str, float]
    limits: Limits
    regions: Sequence[RegionInfo]
    storage: str = "compute"
    size_bytes: Mapping[str, int] | None = None
    _sets: SlotSets = field(init=False)
    _choices: Mapping[str, list[list[Choice]]] = field(init=False)
    _fronts: Fronts | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        solver()  # before anything is weighed
        sizes = self.size_bytes or {region.name: region.slot_bytes for region in self.regions}
        self._sets = SlotSets.of(self.table.groups, self.table.moves, self.regions, sizes)
        self._choices = {
            stream: choices_of(
                self.table,
                stream,
                self._sets,
                max_age=self.limits.max_age,
                warmup=self.limits.warmup,
                storage=self.storage,
            )
            for stream in self.table.streams
        }

    def within(
        self, budget: float, hint: Steps | None = None, effort: float = EFFORT
    ) -> Found | None:
        """The fastest plan within a budget.

        Args:
            budget: of error, an amplitude.
            hint: a plan to begin from.
            effort: after how much work the best plan so far is taken, in CP-SAT's measure.

        Returns:
            The plan; None where none keeps the limits.
        """
        if (free := self.free(budget)) is not None:
            return free
        # Few plans need as many variants as they may have; counting them costs the solver most.
        found = self._solved(budget, hint, effort, capped=False)
        if found is None or self._variants(found.steps) <= self.limits.max_variants:
            return found
        return self._solved(budget, hint, effort, capped=True)

    def free(self, budget: float) -> Found | None:
        """The fastest plan within a budget where nothing else binds it, without the solver.

        Args:
            budget: of error, an amplitude.

        Returns:
            The plan; None where it holds more bytes or needs more variants than it may, or the
            plans are too many to walk through.
        """
        parts = int(budget / PART)
        if self._fronts is None or self._fronts.budget < parts:
            ticks = {move: self._ticks_of(move) for move in self.seconds}
            self._fronts = Fronts.of(self._choices, self._sets, ticks, parts)
        fastest = self._fronts.fastest(parts)
        if fastest is None:
            return None
        steps, error = fastest
        if not self._keeps_limits(steps):
            return None
        return self.found(steps, error * PART, proven=self._fronts.whole)

    def _solved(
        self, budget: float, hint: Steps | None, effort: float, *, capped: bool
    ) -> Found | None:
        """The solver's answer; where it has too much to weigh, without extrapolation."""
        for plain in (False, True):
            solved = solve(
                self._choices,
                self._sets,
                {move: self._ticks_of(move) for move in self.seconds},
                int(budget / PART),
                hint=hint or {},
                effort=effort,
                max_variants=self.limits.max_variants if capped else None,
                max_cache_bytes=self.limits.max_cache_bytes,
                plain=plain,
            )
            if solved is not None:
                steps, error, proven = solved
                return self.found(steps, error * PART, proven=proven and not plain)
        return None

    def _keeps_limits(self, steps: Steps) -> bool:
        most = self.limits.max_cache_bytes
        held = sum(peak_bytes(taken, self._sets) for taken in steps.values())
        return (most is None or held <= most) and (
            self._variants(steps) <= self.limits.max_variants
        )

    def _variants(self, steps: Steps) -> int:
        """How many graphs a plan needs, as its check counts them."""
        found: set[object] = set()
        for taken in steps.values():
            found |= variants_of(taken, self._sets)
        return len(found)

    def everything(self) -> Found:
        """The plan that computes everything; it keeps every limit, and errs by rounding alone.

        Raises:
            CalibrationError: the table has no such move.
        """
        names = [move.name for move in self.table.moves if not move.actions]
        if not names:
            raise CalibrationError("calibrate: the table has no move that computes everything.")
        steps = {
            stream: tuple((names[0], 0) for _ in at) for stream, at in self.table.streams.items()
        }
        return self.found(steps, 0.0, proven=False)

    def _ticks_of(self, move: str) -> int:
        return round(self.seconds[move] / TICK_S)

    def found(self, steps: Steps, error: float, *, proven: bool) -> Found:
        """A plan of some steps."""
        return found_of(self.table, self.seconds, steps, error, proven=proven, storage=self.storage)


def found_of(
    table: ErrorTable,
    seconds: Mapping[str, float],
    steps: Steps,
    error: float,
    *,
    proven: bool,
    storage: str,
) -> Found:
    """A plan of some steps.

    Args:
        table: with its moves.
        seconds: per move.
        steps: per stream.
        error: predicted.
        proven: see `Found`.
        storage: how its slots are kept.
    """
    moves = {move.name: move for move in table.moves}
    rows: dict[str, tuple[Row, ...]] = {}
    letters: dict[str, str] = {}
    for stream, taken in steps.items():
        places = dict(zip(table.streams[stream], taken, strict=True))
        at = [places.get(step) for step in range(len(table.levels))]
        rows[stream] = tuple(None if one is None else row(moves[one[0]], one[1]) for one in at)
        letters[stream] = "".join(" " if one is None else moves[one[0]].letter for one in at)
    spent = sum(seconds[move] for taken in steps.values() for move, _ in taken)
    return Found(steps, rows, letters, spent, error, proven, storage)
