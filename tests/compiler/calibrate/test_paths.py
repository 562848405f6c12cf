"""paths: one walk over the steps gives the plans that the solver gives, whatever the budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest
from turbo4d.compiler.calibrate import paths
from turbo4d.compiler.calibrate.choices import PART
from turbo4d.compiler.calibrate.error_table import ErrorTable
from turbo4d.compiler.calibrate.fidelity import amplitude
from turbo4d.compiler.calibrate.search import Limits, Search
from turbo4d.compiler.calibrate.slot_sets import peak_bytes
from turbo4d.compiler.calibrate.solve import solve

from tests.compiler.calibrate.synthetic import Table, plan_of, regions

BUDGETS_DB = (24, 30, 36, 44)
ALTERNATING = {"even": (0, 2, 4, 6), "odd": (1, 3, 5, 7)}


def searched(table: Table, **limits: Any) -> Search:
    kept = {"max_cache_bytes": None, "max_variants": 99, "max_age": len(table.levels), **limits}
    return Search(cast("ErrorTable", table), table.seconds(), Limits(**kept), regions())


def solved(search: Search, budget: float) -> tuple[float, float]:
    ticks = {move: round(seconds * 1e6) for move, seconds in search.seconds.items()}
    found = solve(
        search._choices,
        search._sets,
        ticks,
        int(budget / PART),
        hint={},
        effort=20.0,
        max_variants=None,
        max_cache_bytes=None,
        plain=False,
    )
    assert found is not None
    steps, error, proven = found
    assert proven
    return sum(ticks[move] for of in steps.values() for move, _ in of), error * PART


@pytest.mark.parametrize(
    ("steps", "use", "options"),
    [
        (9, ("core", "level.1"), {}),
        (8, ("core", "level.1"), {"orders": (0, 1)}),
        (8, ("core",), {"orders": (0, 1, 2)}),
        (7, ("core", "chains", "prune0.5.camera", "bypass"), {}),
        (8, ("core", "level.1"), {"streams": ALTERNATING}),
        (8, ("level.1", "chains"), {}),  # reuse of the level breaks the chains' slots
    ],
)
def test_the_walk_is_as_fast_and_as_exact_as_the_solver(
    steps: int, use: tuple[str, ...], options: Mapping[str, Any]
) -> None:
    search = searched(Table(steps, use, seed=steps, **options))
    for budget_db in BUDGETS_DB:
        found = search.free(amplitude(budget_db))
        assert found is not None
        assert found.proven
        time, error = solved(search, amplitude(budget_db))
        assert round(found.seconds * 1e6) == time
        assert found.error == pytest.approx(error, abs=1e-12)


def test_a_looser_budget_is_walked_anew() -> None:
    search = searched(Table(9, ("core",), seed=2))
    tight, loose = search.free(amplitude(44)), search.free(amplitude(24))
    assert tight is not None
    assert loose is not None
    assert loose.seconds < tight.seconds
    assert searched(Table(9, ("core",), seed=2)).free(amplitude(44)) == tight


def test_where_the_walk_has_too_much_to_keep_the_solver_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = Table(6, ("core", "level.1"), seed=4)
    best = searched(table).within(amplitude(30))
    monkeypatch.setattr(paths, "MOST_MEMORIES", 2)
    search = searched(table)
    assert search.free(amplitude(30)) is None
    asked = search.within(amplitude(30))
    assert best is not None
    assert asked is not None
    assert asked.seconds == pytest.approx(best.seconds)


def test_beginnings_that_err_alike_count_as_one_and_nothing_is_proven_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = Table(10, ("core", "level.1"), seed=6)
    whole = searched(table).free(amplitude(30))
    monkeypatch.setattr(paths, "MOST_BEGINNINGS", 40)
    part = searched(table).free(amplitude(30))
    assert whole is not None
    assert part is not None
    assert not part.proven
    assert part.error <= amplitude(30)
    assert part.seconds >= whole.seconds


@pytest.mark.parametrize("orders", [(0,), (0, 1)])
def test_bytes_are_counted_as_the_plans_check_counts_them(orders: tuple[int, ...]) -> None:
    table = Table(9, ("core", "level.1"), seed=3, orders=orders)
    search = searched(table)
    for budget_db in BUDGETS_DB:
        found = search.free(amplitude(budget_db))
        assert found is not None
        plan = plan_of(table, found.rows, max_age=9, max_variants=99, max_cache_bytes=None)
        held = sum(peak_bytes(taken, search._sets) for taken in found.steps.values())
        assert held == plan.check(regions()).peak_bytes
        # A bound that the plan keeps costs nothing, and is not the solver's to keep.
        assert searched(table, max_cache_bytes=held).free(amplitude(budget_db)) == found
        assert searched(table, max_cache_bytes=held - 1).free(amplitude(budget_db)) is None
