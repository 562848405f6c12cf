"""The table's changes are those of the values themselves; its file is read strictly."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from turbo4d.compiler.calibrate.error_table import ErrorTable, Measured
from turbo4d.compiler.calibrate.moves import groups_of, moves_of
from turbo4d.compiler.calibrate.plan_moves import predicted_db, predicted_error
from turbo4d.compiler.calibrate.table_file import from_json, to_json
from turbo4d.compiler.errors import CalibrationError
from turbo4d.runtime.action import Action
from turbo4d.runtime.extrapolation import predict, weights
from turbo4d.runtime.geometry import Geometry
from turbo4d.runtime.plan import Plan, Row

from tests.compiler.calibrate.test_moves import REGIONS

LEVELS = (80.0, 20.0, 5.0, 1.0, 0.2)
GEOMETRY = Geometry(batch=1, views=2, frames=3, height=4, width=4)
GROUPS = groups_of(REGIONS)
MOVES = moves_of(REGIONS, GROUPS)
VALUES = torch.randn(len(LEVELS), 50, dtype=torch.float64, generator=torch.manual_seed(0))
ROUNDING = (0.1, 0.2, 0.3, 0.4, 0.5)
GAIN = (0.0, 1.0, 2.0, 3.0, 4.0)


def table() -> ErrorTable:
    products = tuple(tuple(row) for row in (VALUES @ VALUES.T).tolist())
    measured = Measured(
        steps=(0, 1, 2, 3, 4),
        products={group.name: products for group in GROUPS},
        gains={
            move.name: dict.fromkeys(move.groups or ("",), GAIN) for move in MOVES if move.actions
        },
        rounding={"int8": {group.name: ROUNDING for group in GROUPS}},
    )
    return ErrorTable("abc", GEOMETRY, LEVELS, "sigma", GROUPS, MOVES, {"main": measured})


TABLE = table()


def plan(rows: list[Row], storage: dict[str, str] | None = None) -> Plan:
    return Plan(
        "p", "abc", GEOMETRY, LEVELS, "sigma", {"main": tuple(rows)}, 9, 9, storage=storage or {}
    )


@given(st.integers(1, 4), st.sets(st.integers(0, 3), min_size=1, max_size=3))
def test_a_change_is_the_distance_of_the_extrapolated_value(step: int, given: set[int]) -> None:
    sources = tuple(sorted(source for source in given if source < step))
    if not sources:
        return
    places = [math.log(level) for level in LEVELS]
    mix = weights(tuple(places[source] for source in sources), places[step])
    read = predict([VALUES[source] for source in sources], mix)
    wanted = float((read - VALUES[step]).norm() / VALUES[step].norm())
    assert TABLE.change("main", step, "core", sources) == pytest.approx(wanted)


def test_rounding_adds_to_the_change_as_independent_noise() -> None:
    plain = TABLE.change("main", 3, "core", (1,))
    noise = ROUNDING[1] * float(VALUES[1].norm() / VALUES[3].norm())
    assert TABLE.change("main", 3, "core", (1,), "int8") == pytest.approx(math.hypot(plain, noise))


def test_a_plans_errors_add_up() -> None:
    rows: list[Row] = [{}, {"level.1": Action("reuse")}, {}, {"core": Action("reuse", order=1)}, {}]
    # Where the level is reused the core is executed, so the core's newest sources are 1 and 2.
    wanted = GAIN[1] * TABLE.change("main", 1, "level.1", (0,))
    wanted += GAIN[3] * TABLE.change("main", 3, "core", (1, 2))
    assert predicted_error(TABLE, plan(rows), REGIONS) == pytest.approx(wanted)
    assert predicted_db(TABLE, plan([{}] * 5), REGIONS) == math.inf


def test_a_plan_is_predicted_with_its_own_storage() -> None:
    rows: list[Row] = [{}, {}, {"core": Action("reuse")}, {}, {}]
    kept = predicted_error(TABLE, plan(rows, {"core": "int8"}), REGIONS)
    assert kept == pytest.approx(GAIN[2] * TABLE.change("main", 2, "core", (1,), "int8"))


def test_bypass_adds_its_own_error() -> None:
    rows: list[Row] = [{}, {}, dict.fromkeys(("down.0.0.chain", "middle.chain"), Action("bypass"))]
    assert predicted_error(TABLE, plan([*rows, {}, {}]), REGIONS) == GAIN[2]


def test_a_row_that_is_no_move_is_refused() -> None:
    rows: list[Row] = [{}, {}, {"middle.chain": Action("reuse")}, {}, {}]
    with pytest.raises(CalibrationError) as refused:
        predicted_error(TABLE, plan(rows), REGIONS)
    assert str(refused.value).startswith(
        "plan 'p', stream 'main', step 2: its row (middle.chain: reuse) is no measured move; "
        "there are bypass, camera, "
    )


def test_a_read_before_enough_writes_is_refused() -> None:
    rows: list[Row] = [{}, {"core": Action("reuse", order=1)}, {}, {}, {}]
    with pytest.raises(CalibrationError, match="group 'core' is read with order 1 before 2 steps"):
        predicted_error(TABLE, plan(rows), REGIONS)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: TABLE.change("side", 1, "core", (0,)), "stream 'side' was not measured"),
        (lambda: TABLE.change("main", 1, "cor", (0,)), "group 'cor' was not measured"),
        (lambda: TABLE.change("main", 7, "core", (0,)), "step 7 is unknown"),
        (lambda: TABLE.change("main", 1, "core", (0,), "float16"), "storage 'float16' of group"),
        (lambda: TABLE.error("main", 1, "core", 0, {}), "move 'core' reads group 'core', whose"),
        (lambda: TABLE.error("main", 1, "cre", 0, {}), "move 'cre' was not measured"),
        (lambda: TABLE.error("main", 1, "core", 1, {"core": (0,)}), "order 1 of move 'core' is"),
    ],
)
def test_what_was_not_measured_is_named(call: Any, said: str) -> None:
    with pytest.raises(CalibrationError, match=said):
        call()


def test_a_table_survives_its_file() -> None:
    assert from_json(to_json(TABLE)) == TABLE
    assert to_json(from_json(to_json(TABLE))) == to_json(TABLE)


def broken(**fields: object) -> str:
    return json.dumps({**json.loads(to_json(TABLE)), **fields})


def of_main(**fields: object) -> str:
    main = json.loads(to_json(TABLE))["measured"]["main"]
    return broken(measured={"main": {**main, **fields}})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (to_json(TABLE)[:-9], "is no JSON"),
        ("[]", "the file holds \\[\\]; wanted an object"),
        (broken(schema_version=2), "schema_version is 2; this turbo4d reads 1"),
        (broken(more=1), "the file has the field 'more', which is unknown"),
        (broken(levels=[1.0, 2.0]), "noise levels must fall"),
        (broken(levels=[1.0, "x"]), "field 'levels' holds \"x\"; wanted finite numbers"),
        (broken(level_unit="db"), "level_unit is 'db'"),
        (broken(geometry={"batch": 1}), "geometry: got batch"),
        (broken(groups=[{"name": "a"}]), "a group lacks the field 'kind'"),
        (of_main(steps=[0, 1, 3, 2, 4]), "the steps of stream 'main' are"),
        (of_main(steps=[0, 1]), "stream 'main' has 2 steps and values for another number"),
        (of_main(gains={"core": {"core": [0.0, 1.0, float("nan"), 3.0, 4.0]}}), "wanted finite"),
        (of_main(gains={"core": [1.0]}), "wanted an object"),
    ],
)
def test_a_file_that_is_no_table_is_refused(text: str, said: str) -> None:
    with pytest.raises(CalibrationError, match=said):
        from_json(text)


def test_a_table_of_part_of_the_steps_knows_the_others_do_not_run() -> None:
    of = TABLE.measured["main"]
    part = replace(of, steps=(0, 2, 3, 4, 5))
    with pytest.raises(CalibrationError, match="stream 'main' does not run at step 1"):
        replace(TABLE, measured={"main": part}).change("main", 1, "core", (0,))
