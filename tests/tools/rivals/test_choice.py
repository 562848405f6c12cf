"""Each system's cheapest setting at a target is found without measuring all of them."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from turbo4d.tools.rivals.choice import MARGIN_DB, TARGETS_DB, Point, enough, wanted


def settle(points, truth):
    """Measure what is wanted until nothing is; the points, and what was measured."""
    measured = []
    while names := wanted(points):
        measured += names
        points = [
            replace(point, measured_db=truth[point.name]) if point.name in names else point
            for point in points
        ]
    return points, measured


@given(st.lists(st.tuples(st.floats(0.1, 9.0), st.floats(20, 50)), min_size=1, max_size=12))
def test_the_cheapest_is_found_where_screening_tells_the_truth(drawn):
    points = [Point("s", str(i), effort, db) for i, (effort, db) in enumerate(drawn)]
    truth = {point.name: point.screened_db for point in points}
    found, measured = settle(points, truth)
    assert len(measured) == len(set(measured))
    for target in TARGETS_DB:
        able = [point for point in found if drawn[int(point.name)][1] >= target]
        if able:
            cheapest = min(point.effort for point in able)
            known = [point.effort for point in able if point.measured_db is not None]
            assert min(known) == cheapest


@given(
    st.lists(st.tuples(st.floats(0.1, 9.0), st.floats(20, 50)), min_size=1, max_size=12),
    st.floats(-3, 3),
)
def test_a_screening_scene_that_is_easier_by_a_constant_costs_no_target(drawn, off):
    points = [Point("s", str(i), effort, db + off) for i, (effort, db) in enumerate(drawn)]
    truth = {str(i): db for i, (_, db) in enumerate(drawn)}
    found, _ = settle(points, truth)
    for target in TARGETS_DB:
        able = [point for point in found if truth[point.name] >= target + MARGIN_DB]
        if able:
            assert any(
                point.measured_db is not None and point.measured_db >= target for point in found
            )


def test_what_is_far_from_every_target_is_not_measured():
    points = [Point("s", str(db), db / 10, float(db)) for db in range(20, 60)]
    assert wanted(points) == ["30", "35", "40"]


def test_a_system_that_reaches_nothing_shows_its_best():
    points = [Point("s", "a", 1.0, 21.0), Point("s", "b", 2.0, 25.0), Point("s", "c", 3.0, 24.0)]
    assert wanted(points) == ["b"]


def test_a_setting_that_was_not_screened_is_not_chosen():
    assert wanted([Point("s", "a", 1.0, None), Point("s", "b", 2.0, 45.0)]) == ["b"]


def test_screening_ends_once_the_highest_target_is_surely_reached():
    assert not enough([45.0, 41.4, 39.0, 50.0])
    assert enough([45.0, 41.5, 39.0, 50.0])
