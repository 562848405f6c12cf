"""search: the plan found is the best there is, and it keeps every limit."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any, cast

import pytest
from turbo4d.compiler.calibrate.error_table import ErrorTable
from turbo4d.compiler.calibrate.fidelity import amplitude
from turbo4d.compiler.calibrate.search import Found, Limits, Search
from turbo4d.compiler.errors import CalibrationError

from tests.compiler.calibrate.synthetic import Table, best_by_enumeration, plan_of, regions

NESTED = ("core", "level.1")
BLOCKS = ("core", "chains", "prune0.5.camera")


def searched(
    table: Table,
    limits: Limits,
    storage: str = "compute",
    size_bytes: Mapping[str, int] | None = None,
) -> Search:
    errors = cast("ErrorTable", table)
    return Search(errors, table.seconds(), limits, regions(), storage, size_bytes)


def found(table: Table, limits: Limits, budget_db: float) -> Found:
    one = searched(table, limits).within(amplitude(budget_db))
    assert one is not None
    plan = plan_of(
        table,
        one.rows,
        max_age=limits.max_age,
        max_variants=limits.max_variants,
        max_cache_bytes=limits.max_cache_bytes,
    )
    plan.check(regions())
    assert one.error <= amplitude(budget_db)
    return one


@pytest.mark.parametrize("budget_db", [30, 40, 46])
@pytest.mark.parametrize(
    ("use", "orders", "limits"),
    [
        (NESTED, (0,), {}),
        (NESTED, (0,), {"max_variants": 3}),
        (NESTED, (0,), {"max_variants": 2}),
        (NESTED, (0,), {"max_cache_bytes": 1000}),
        (NESTED, (0,), {"max_cache_bytes": 1500}),
        (NESTED, (0,), {"max_cache_bytes": 500}),
        (NESTED, (0,), {"max_age": 1}),
        (("core",), (0, 1, 2), {}),
        (("core",), (0, 1), {"max_cache_bytes": 1999}),
        (BLOCKS, (0,), {}),
        (BLOCKS, (0,), {"max_variants": 3, "max_cache_bytes": 1210}),
    ],
)
def test_no_plan_among_all_is_faster(
    use: tuple[str, ...], orders: tuple[int, ...], limits: Mapping[str, Any], budget_db: float
) -> None:
    table = Table(6, use, seed=len(limits) + len(use), orders=orders)
    kept = {"max_age": 6, "max_variants": 9, "max_cache_bytes": None, **limits}
    one = found(table, Limits(**kept), budget_db)
    assert one.proven
    best = best_by_enumeration(table, budget_db, **kept)
    assert one.seconds == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("budget_db", [25, 32, 40])
def test_twenty_steps_are_as_dynamic_programming_finds_them(budget_db: float) -> None:
    """Where only the core is reused the last computed step is all that a step depends on."""
    table = Table(20, ("core",), seed=3)
    seconds, budget = table.seconds(), amplitude(budget_db)
    # (last computed step, computed steps) -> least error
    states = {(0, 1): 0.0}
    for step in range(1, 20):
        after: dict[tuple[int, int], float] = {}
        for (last, computed), error in states.items():
            reuse = error + table.group_error("main", step, "core", "core", 0, (last,))
            for state, total in (((step, computed + 1), error), ((last, computed), reuse)):
                after[state] = min(total, after.get(state, float("inf")))
        states = after
    fewest = min(computed for (_, computed), error in states.items() if error <= budget)
    best = fewest * seconds["compute"] + (20 - fewest) * seconds["core"]
    one = found(table, Limits(None, 8, 20), budget_db)
    assert one.proven
    assert one.seconds == pytest.approx(best, abs=1e-5)


def test_streams_share_the_cap_and_the_bytes() -> None:
    alternating = {"even": (0, 2, 4, 6), "odd": (1, 3, 5, 7)}
    table = Table(8, NESTED, seed=1, streams=alternating)
    free = found(table, Limits(None, 8, 8), 36)
    assert free.rows["even"][1] is None
    assert free.letters["odd"][0] == " "
    bound = found(table, Limits(1000, 8, 8), 36)  # the slot of one stream's core and no more
    assert bound.seconds > free.seconds
    capped = found(table, Limits(None, 3, 8), 36)
    assert capped.seconds >= free.seconds


def test_the_first_steps_compute() -> None:
    table = Table(6, ("core",), seed=1)
    steps = found(table, Limits(None, 8, 6, warmup=3), 20).steps["main"]
    assert [move for move, _ in steps[:3]] == ["compute"] * 3
    assert [move for move, _ in steps[3:]] != ["compute"] * 3


def test_smaller_slots_fit_where_larger_do_not() -> None:
    table, limits = Table(6, NESTED, seed=2), Limits(300, 8, 6)
    small = {region.name: region.slot_bytes // 4 for region in regions()}
    plain = searched(table, limits).within(amplitude(35))
    stored = searched(table, limits, "int8", small).within(amplitude(35))
    assert plain is not None
    assert plain.letters == {"main": "CCCCCC"}
    assert stored is not None
    assert stored.seconds < plain.seconds
    assert stored.storage == "int8"
    assert stored.name != plain.name


def test_the_same_search_gives_the_same_plan() -> None:
    table, limits = Table(12, NESTED, seed=5), Limits(None, 8, 12)
    plans = [found(table, limits, 33) for _ in range(2)]
    assert plans[0] == plans[1]


def test_without_or_tools_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    imported = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("ortools"):
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(
        CalibrationError,
        match=r"^calibrate: OR-tools, which searches the plans, is not installed; install it with "
        r"pip install 'turbo4d\[calibrate\]'\.$",
    ):
        searched(Table(6, ("core",)), Limits(None, 8, 6))
