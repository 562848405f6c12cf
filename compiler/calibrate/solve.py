"""solve: the fastest plan within bounds of error, bytes and variants, by CP-SAT.

Source: OR-tools CP-SAT (Perron, Didier); the model is in `stream_model` and `bounds_model`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from turbo4d.compiler.calibrate.bounds_model import bound_bytes, bound_variants
from turbo4d.compiler.calibrate.choices import Choice, affordable
from turbo4d.compiler.calibrate.stream_model import StreamModel
from turbo4d.compiler.errors import CalibrationError

if TYPE_CHECKING:
    from turbo4d.compiler.calibrate.slot_sets import SlotSets

Steps = Mapping[str, tuple[tuple[str, int], ...]]  # per stream and visited step: move and order


def solve(
    choices: Mapping[str, Sequence[Sequence[Choice]]],
    sets: SlotSets,
    ticks: Mapping[str, int],
    budget: int,
    *,
    hint: Steps,
    effort: float,
    max_variants: int | None,
    max_cache_bytes: int | None,
    plain: bool,
) -> tuple[Steps, int, bool] | None:
    """The fastest plan, and of those that are as fast the one that errs least.

    Args:
        choices: per stream and visited step.
        sets: the slot sets that they read.
        ticks: per move what a step of it takes.
        budget: of error, in parts.
        hint: a plan to begin from.
        effort: after how much work the best plan so far is taken, in CP-SAT's measure.
        max_variants: None where they need not be counted.
        max_cache_bytes: None for no bound.
        plain: whether extrapolation is left out, of which there is most to weigh.

    Returns:
        The plan, its error in parts, and whether it is proven that none is faster; None where none
        was found.
    """
    cp = solver()
    model = cp.CpModel()
    streams: dict[str, StreamModel] = {}
    for name, found in choices.items():
        within = affordable(found, budget)
        if plain:
            within = [[choice for choice in here if not choice.order] for here in within]
        if not all(within):
            return None
        streams[name] = StreamModel(model, sets, within)
    error = sum(stream.error for stream in streams.values())
    model.add(error <= budget)
    if max_variants is not None:
        bound_variants(model, [*streams.values()], max_variants)
    if max_cache_bytes is not None:
        bound_bytes(model, [*streams.values()], max_cache_bytes)
    time = sum(
        ticks[move] * taken
        for stream in streams.values()
        for (_, move, _), taken in stream.taken.items()
    )
    model.minimize(time)
    _hint(model, streams, hint)
    solving = _solving(cp, effort)
    status = solving.solve(model)
    if status not in (cp.OPTIMAL, cp.FEASIBLE):
        return None
    steps, erred = _steps(streams, solving), solving.value(error)
    # Of the plans that are as fast, the one that errs least.
    model.add(time <= solving.value(time))
    model.minimize(error)
    model.clear_hints()
    _hint(model, streams, steps)
    if solving.solve(model) in (cp.OPTIMAL, cp.FEASIBLE):
        steps, erred = _steps(streams, solving), solving.value(error)
    return steps, int(erred), status == cp.OPTIMAL


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


def _solving(cp: Any, effort: float) -> Any:
    found = cp.CpSolver()
    found.parameters.num_workers = 1
    found.parameters.random_seed = 0
    # Paths beside one budget: nearly a linear program.
    found.parameters.linearization_level = 2
    found.parameters.max_deterministic_time = effort
    found.parameters.catch_sigint_signal = False  # Ctrl-C belongs to Python
    return found


def _hint(model: Any, streams: Mapping[str, StreamModel], steps: Steps) -> None:
    for name, taken in steps.items():
        for (place, move, order), var in streams[name].taken.items():
            model.add_hint(var, (move, order) == taken[place])


def _steps(streams: Mapping[str, StreamModel], solving: Any) -> Steps:
    found: dict[str, tuple[tuple[str, int], ...]] = {}
    for name, stream in streams.items():
        taken = sorted(key for key, var in stream.taken.items() if solving.boolean_value(var))
        found[name] = tuple((move, order) for _, move, order in taken)
    return found
