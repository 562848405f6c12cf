"""What is measured predicts: exactly where one step deviates, and in rank where many do."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from turbo4d.compiler.calibrate.assembly import _guided, assembled
from turbo4d.compiler.calibrate.changes import rounding
from turbo4d.compiler.calibrate.error_table import ErrorTable
from turbo4d.compiler.calibrate.gains import DENSE, FEW, Probe, between, probes_of
from turbo4d.compiler.calibrate.measure import dense_moves, measure
from turbo4d.compiler.calibrate.moves import groups_of, moves_of, row
from turbo4d.compiler.calibrate.plan_moves import predicted_db, predicted_error
from turbo4d.compiler.calibrate.rank import spearman
from turbo4d.compiler.calibrate.state import State
from turbo4d.runtime.plan import Plan
from turbo4d.tools.measure.random_plans import draw, plan_of

from tests.compiler.calibrate.test_moves import GROUPS, REGIONS
from tests.compiler.calibrate.tiny import LEVELS, Example, example, learned

STEPS = len(LEVELS)


@pytest.fixture(scope="module")
def table() -> ErrorTable:
    harness, given = learned()
    return measure(harness, [("a", given)])


def deviating(table: ErrorTable, move: str, step: int) -> Plan:
    harness, _ = learned()
    chosen = next(each for each in table.moves if each.name == move)
    rows = [row(chosen) if at == step else {} for at in range(STEPS)]
    return harness.plan("p", {"main": rows}, max_age=9, max_variants=9)


def test_one_deviating_step_is_predicted_as_a_session_measures_it(table: ErrorTable) -> None:
    harness, given = learned()
    for move in [move for move in table.moves[1:] if not move.fitted]:
        for step in (1, STEPS - 1):
            plan = deviating(table, move.name, step)
            measured = harness.psnr(given, plan)
            assert predicted_db(table, plan, harness.regions) == pytest.approx(measured, abs=1e-3)


def test_random_plans_are_ranked_as_they_measure(table: ErrorTable) -> None:
    harness, given = learned()
    predicted: list[float] = []
    measured: list[float] = []
    for seed in range(24):
        plan = plan_of(
            harness, "p", {"main": draw(seed, table.moves, table.groups, STEPS)}, table.moves
        )
        if predicted_error(table, plan, harness.regions):
            predicted.append(predicted_db(table, plan, harness.regions))
            measured.append(harness.judge(given, harness.follow(given, plan)))
    assert (spearman(predicted, measured) or 0.0) > 0.8


def test_a_stopped_measurement_goes_on_where_it_was(tmp_path: Path, table: ErrorTable) -> None:
    harness, given = learned()
    path, shares = tmp_path / "state.json", list[float]()

    class Stopped(Exception):
        pass

    def stop(share: float, what: str) -> None:
        shares.append(share)
        if len(shares) == 9:
            raise Stopped

    with pytest.raises(Stopped):
        measure(harness, [("a", given)], State(path, {}), progress=stop)
    kept = path.read_text()
    again = measure(harness, [("a", given)], State(path, {}), progress=stop)
    assert again == table
    assert all(part in path.read_text() for part in kept.rstrip("}\n").split(", ")[3:6])
    assert sorted(shares[9:]) == shares[9:]
    assert shares[-1] < 1

    def refuse(*_: object) -> Example:
        raise AssertionError("measured anew")

    # With all of it in the file, no run is needed.
    finished = State(path, {})
    harness_run, harness._run = harness._run, refuse  # pyright: ignore
    try:
        assert measure(harness, [("a", given)], finished) == table
    finally:
        harness._run = harness_run


def test_examples_share_changes_and_the_first_two_gains() -> None:
    harness, given = learned()
    state = State(None, {})
    examples = [("a", given), ("b", example(1)), ("c", example(2))]
    joint = measure(harness, examples, state, use=["core", "camera"], storages=False)
    a, b = state.get("changes a")["main"], state.get("changes b")["main"]
    c = state.get("changes c")["main"]
    mean = sum(each["products"]["core"][0][3] for each in (a, b, c)) / 3
    assert joint.measured["main"].products["core"][0][3] == pytest.approx(mean)
    assert state.get("probe b main 1 core") is not None
    assert state.get("probe b main 1 camera") is None
    assert state.get("probe c main 1 core") is None


def test_what_only_the_first_example_has_is_scaled_as_the_others_lie_to_it() -> None:
    harness, given = learned()
    state = State(None, {})
    alone = measure(harness, [("a", given)], state, use=["core", "camera"])
    changes = state.get("changes a")
    probes = probes_of(harness.streams, alone.moves, dense=["core"])
    first = {probe: state.get(f"probe a {probe.name}") for probe in probes}
    second = {probe: 3 * error for probe, error in first.items() if probe.move == "core"}
    joint = assembled(alone, [changes, changes], [first, second])
    for move in ("core", "camera"):
        pairs = zip(
            *(
                next(iter(each.measured["main"].gains[move].values()))[1:]
                for each in (joint, alone)
            ),
            strict=True,
        )
        for both, one in pairs:
            assert both == pytest.approx(2 * one)


def test_gains_between_probes_are_straight_in_their_logarithms() -> None:
    levels = tuple(math.exp(-step) for step in range(5))
    found = between({1: 1.0, 3: 100.0}, range(5), levels, "sigma")
    assert found == pytest.approx((1.0, 1.0, 10.0, 100.0, 100.0))


def test_moves_that_matter_most_are_probed_first_and_at_many_steps() -> None:
    moves = moves_of(REGIONS, GROUPS)
    dense = dense_moves(moves, GROUPS)
    assert dense == ("core", "level.1")
    probes = probes_of({"main": range(20)}, moves, dense=dense)
    assert [p.step for p in probes[:DENSE]] == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    assert Probe("main", 19, "bypass", ()) in probes
    assert Probe("main", 19, "core", (16, 17, 18)) in probes
    counts = Counter((probe.move, probe.order) for probe in probes)
    assert set(counts.values()) == {DENSE, FEW}
    assert {move for move, order in counts if order} == {"core", "level.1"}
    # A stream that skips steps reads from its own last step.
    sparse = probes_of({"main": (0, 3, 7)}, moves, dense=dense)
    assert (sparse[0].sources, sparse[0].step, sparse[1].sources) == ((0,), 3, (3,))


def test_rounding_is_what_a_storage_loses() -> None:
    value = torch.randn(64, 64, generator=torch.manual_seed(0))
    assert 0.001 < rounding([value], "int8") < 0.02
    assert rounding([value], "int8") < rounding([value], "float8")
    assert rounding([torch.zeros(64)], "int8") == 0.0


def test_groups_follow_the_harness() -> None:
    harness, _ = learned()
    names = [group.name for group in groups_of(harness.regions)]
    assert names == ["step", "core", "chains", "blocks.spatial", "blocks.camera"]


def test_random_plans_compute_first_and_differ() -> None:
    moves = moves_of(REGIONS, GROUPS)
    drawn = [draw(seed, moves, GROUPS, 20) for seed in range(30)]
    assert {plan[0] for plan in drawn} == {("compute", 0)}
    assert len({str(plan) for plan in drawn}) > 25
    assert draw(3, moves, GROUPS, 20) == drawn[3]


def test_a_move_probed_where_no_other_was_has_its_own_gains_there() -> None:
    levels = tuple(math.exp(-step) for step in range(6))
    table = SimpleNamespace(levels=levels, level_unit="sigma")
    guide = {0: 1.0, 3: 8.0, 5: 2.0}
    found = _guided(cast("ErrorTable", table), range(6), {1: 4.0, 4: 8.0}, guide)
    assert found == pytest.approx((2.0, 4.0, 8.0, 16.0, 8.0, 4.0))
