"""frontier: whoever asks for more never gets a faster plan, whatever the plans measure."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from turbo4d.compiler.calibrate.frontier import APART, GRID_DB, Place, choose, distinct, settle
from turbo4d.compiler.calibrate.search import Found

DB = st.floats(0, 120, allow_nan=False)


def place(budget_db: float, seconds: float) -> Place:
    return Place(budget_db, Found({}, {}, {"main": f"{seconds}"}, seconds, 0.0, proven=True))


@given(st.lists(st.tuples(DB, DB), min_size=1, max_size=60), DB, DB, st.integers(0, 9))
def test_a_higher_target_is_never_faster(
    drawn: list[tuple[float, float]], one: float, other: float, nearby: int
) -> None:
    places = settle([place(index, seconds) for index, (seconds, _) in enumerate(drawn)])
    low, high = sorted((one, other))

    def measured(at: int) -> float:
        return drawn[at][1]

    first, second = (choose(len(places), measured, target, nearby) for target in (low, high))
    if second is None:
        return
    assert first is not None
    assert first <= second
    assert places[first].found.seconds <= places[second].found.seconds


@given(st.lists(DB, min_size=1, max_size=60), DB)
def test_what_is_chosen_measures_the_target(drawn: list[float], target: float) -> None:
    at = choose(len(drawn), drawn.__getitem__, target)
    if at is None:
        assert drawn[-1] < target
    else:
        assert drawn[at] >= target


@given(st.lists(DB, min_size=1, max_size=60), DB)
def test_of_rising_figures_the_first_that_suffices_is_chosen(
    drawn: list[float], target: float
) -> None:
    rising = sorted(drawn)
    wanted = next((at for at, figure in enumerate(rising) if figure >= target), None)
    assert choose(len(rising), rising.__getitem__, target) == wanted


def test_few_places_are_looked_at() -> None:
    seen: set[int] = set()

    def measured(at: int) -> float:
        seen.add(at)
        return GRID_DB[at]

    assert choose(len(GRID_DB), measured, 35.0) == GRID_DB.index(35.0)
    assert len(seen) <= 8 + 8


@given(st.lists(DB, min_size=1, max_size=30))
def test_settled_places_only_slow_down_and_none_is_slower_than_found(drawn: list[float]) -> None:
    found = [place(index, seconds) for index, seconds in enumerate(drawn)]
    settled = settle(found)
    seconds = [each.found.seconds for each in settled]
    assert seconds == sorted(seconds)
    assert all(after <= before for after, before in zip(seconds, drawn, strict=True))
    assert [each.budget_db for each in settled] == [each.budget_db for each in found]


def test_plans_that_take_nearly_as_long_are_not_all_run_but_the_last_is() -> None:
    seconds = [1.0, 1.0, 1.0 + APART / 2, 1.0 + APART, 1.5, 1.5 + APART / 2]
    places = [place(index, each) for index, each in enumerate(seconds)]
    places = [replace(p, found=replace(p.found, steps={"m": ((f"{p}", 0),)})) for p in places]
    assert distinct(places) == (0, 3, 4, 5)
    assert distinct(places[:1]) == (0,)
    assert distinct([places[0], replace(places[0], budget_db=9.0)]) == (0,)
