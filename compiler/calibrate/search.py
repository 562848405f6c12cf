"""search: the plan of least predicted time within bounds of error, bytes and variants, by CP-SAT.

Source: OR-tools CP-SAT (Perron, Didier); the model is in `stream_model` and `bounds_model`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from turbo4d.compiler.calibrate.bounds_model import bound_bytes, bound_variants
from turbo4d.compiler.calibrate.choices import PART, Choice, affordable, choices_of
from turbo4d.compiler.calibrate.moves import row
from turbo4d.compiler.calibrate.slot_sets import SlotSets, variants_of
from turbo4d.compiler.calibrate.state import key
from turbo4d.compiler.calibrate.stream_model import StreamModel
from turbo4d.compiler.errors import CalibrationError
from turbo4d.runtime.plan import Row
from turbo4d.runtime.region_info import RegionInfo

if TYPE_CHECKING:
    from turbo4d.compiler.calibrate.error_table import ErrorTable

# CP-SAT's own measure of work, the same on every machine; some seconds on a slow core.
EFFORT = 4.0
VERSION = 2  # of what is searched: a state's plans of another are not taken
TICK_S = 1e-6  # predicted time is counted in these
Steps = Mapping[str, tuple[tuple[str, int], ...]]  # per stream and visited step: move and order


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
    _cp: Any = field(init=False)

    def __post_init__(self) -> None:
        self._cp = solver()
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
        found = self._solve(budget, hint, effort, capped=False)
        if found is None:  # too much to weigh: without extrapolation there is far less
            found = self._solve(budget, hint, effort, capped=False, plain=True)
        # Few plans need as many variants as they may have; counting them costs the solver most.
        if found is None or self._variants(found.steps) <= self.limits.max_variants:
            return found
        capped = self._solve(budget, hint, effort, capped=True)
        return capped or self._solve(budget, hint, effort, capped=True, plain=True)

    def _solve(
        self,
        budget: float,
        hint: Steps | None,
        effort: float,
        *,
        capped: bool,
        plain: bool = False,
    ) -> Found | None:
        parts = int(budget / PART)
        model = self._cp.CpModel()
        streams: dict[str, StreamModel] = {}
        for name, choices in self._choices.items():
            within = affordable(choices, parts)
            if plain:
                within = [[choice for choice in here if not choice.order] for here in within]
            if not all(within):
                return None
            streams[name] = StreamModel(model, self._sets, within)
        error = sum(stream.error for stream in streams.values())
        model.add(error <= parts)
        if capped:
            bound_variants(model, [*streams.values()], self.limits.max_variants)
        if self.limits.max_cache_bytes is not None:
            bound_bytes(model, [*streams.values()], self.limits.max_cache_bytes)
        ticks = sum(self._ticks(stream) for stream in streams.values())
        model.minimize(ticks)
        for name, taken in (hint or {}).items():
            _hint(model, streams[name], taken)
        solver = self._cp.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = 0
        solver.parameters.linearization_level = (
            2  # paths beside one budget: nearly a linear program
        )
        solver.parameters.max_deterministic_time = effort
        solver.parameters.catch_sigint_signal = False  # Ctrl-C belongs to Python
        status = solver.solve(model)
        if status not in (self._cp.OPTIMAL, self._cp.FEASIBLE):
            return None
        steps = {name: _steps(stream, solver) for name, stream in streams.items()}
        parts, proven = solver.value(error), status == self._cp.OPTIMAL and not plain
        # Of the plans that are as fast, the one that errs least.
        model.add(ticks <= solver.value(ticks))
        model.minimize(error)
        model.clear_hints()
        for name, taken in steps.items():
            _hint(model, streams[name], taken)
        if solver.solve(model) in (self._cp.OPTIMAL, self._cp.FEASIBLE):
            steps = {name: _steps(stream, solver) for name, stream in streams.items()}
            parts = solver.value(error)
        return self.found(steps, parts * PART, proven=proven)

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

    def _ticks(self, stream: StreamModel) -> Any:
        return sum(
            round(self.seconds[move] / TICK_S) * taken
            for (_, move, _), taken in stream.taken.items()
        )

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


def solver() -> Any:
    """The module of CP-SAT.

    Raises:
        CalibrationError: it is not installed.
    """
    try:
        from ortools.sat.python import cp_model
    except ImportError as error:
        raise CalibrationError(
            "calibrate: OR-tools, which searches the plans, is not installed; install it with "
            "pip install 'turbo4d[calibrate]'."
        ) from error
    return cp_model


def _hint(model: Any, stream: StreamModel, taken: Sequence[tuple[str, int]]) -> None:
    for (place, move, order), var in stream.taken.items():
        model.add_hint(var, (move, order) == taken[place])


def _steps(stream: StreamModel, solver: Any) -> tuple[tuple[str, int], ...]:
    taken = sorted(key for key, var in stream.taken.items() if solver.boolean_value(var))
    return tuple((move, order) for _, move, order in taken)
