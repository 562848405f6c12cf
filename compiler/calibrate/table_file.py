"""Error tables as text: JSON, read strictly; equal tables give equal texts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from turbo4d.compiler.errors import CalibrationError
from turbo4d.runtime.action import Action
from turbo4d.runtime.errors import OptionError, PlanError
from turbo4d.runtime.geometry import Geometry
from turbo4d.runtime.levels import UNITS, check_levels
from turbo4d.runtime.region_info import RegionKind

from .error_table import ErrorTable, Matrix, Measured
from .moves import Group, Move

SCHEMA_VERSION = 1
_FIELDS: Mapping[str, tuple[type, str]] = {
    "schema_version": (int, "an integer"),
    "model": (str, "a text"),
    "geometry": (dict, "an object of sizes"),
    "levels": (list, "a list of numbers"),
    "level_unit": (str, "a text"),
    "groups": (list, "a list of groups"),
    "moves": (list, "a list of moves"),
    "measured": (dict, "an object of streams"),
}
_GROUP = ("name", "kind", "regions")
_MOVE = ("name", "letter", "actions", "groups", "executed", "orders", "fitted")
_MEASURED = ("steps", "products", "gains", "rounding", "fit_products")


def to_json(table: ErrorTable) -> str:
    """The file's text."""
    values = {
        "schema_version": SCHEMA_VERSION,
        "model": table.model,
        "geometry": table.geometry.as_dict(),
        "levels": table.levels,
        "level_unit": table.level_unit,
        "groups": [{name: getattr(group, name) for name in _GROUP} for group in table.groups],
        "moves": [_of_move(move) for move in table.moves],
        "measured": {
            stream: {name: getattr(measured, name) for name in _MEASURED}
            for stream, measured in sorted(table.measured.items())
        },
    }
    return json.dumps(values, indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> ErrorTable:
    """The table that a file's text describes.

    Raises:
        CalibrationError: where a field is unknown, missing or malformed, or the schema is
            another's.
    """
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise CalibrationError(
            f"error table: line {error.lineno} is no JSON: {error.msg}; measure anew."
        ) from error
    values = _object(raw, "the file", tuple(_FIELDS))
    version = values["schema_version"]
    if isinstance(version, bool) or version != SCHEMA_VERSION:
        raise CalibrationError(
            f"error table: schema_version is {version!r}; this turbo4d reads {SCHEMA_VERSION}. "
            "Measure anew with this version."
        )
    for name, (kind, wanted) in _FIELDS.items():
        _typed(values[name], kind, f"field {name!r}", wanted)
    if values["level_unit"] not in UNITS:
        raise CalibrationError(
            f"error table: level_unit is {values['level_unit']!r}; wanted one of "
            f"{', '.join(sorted(UNITS))}."
        )
    levels = _numbers(values["levels"], "field 'levels'")
    try:
        check_levels(levels, values["level_unit"])
        table = ErrorTable(
            model=values["model"],
            geometry=Geometry.from_mapping(values["geometry"]),
            levels=levels,
            level_unit=values["level_unit"],
            groups=tuple(_group(each) for each in values["groups"]),
            moves=tuple(_move(each) for each in values["moves"]),
            measured={
                stream: _measured(each, f"stream {stream!r}")
                for stream, each in values["measured"].items()
            },
        )
    except (OptionError, PlanError) as error:
        raise CalibrationError(f"error table: {error}") from error
    return _agreeing(table)


def _of_move(move: Move) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(move, name) for name in _MOVE}
    values["actions"] = {region: str(action) for region, action in move.actions.items()}
    return values


def _group(raw: object) -> Group:
    values = _object(raw, "a group", _GROUP)
    name, kind = _text(values["name"], "a group's name"), values["kind"]
    if kind not in get_args(RegionKind):
        raise CalibrationError(
            f"error table: group {name!r} is of kind {kind!r}; wanted one of "
            f"{', '.join(sorted(get_args(RegionKind)))}."
        )
    return Group(name, kind, _texts(values["regions"], f"group {name!r}"))


def _move(raw: object) -> Move:
    values = _object(raw, "a move", _MOVE)
    name = _text(values["name"], "a move's name")
    actions = _typed(values["actions"], dict, f"move {name!r}", "an object of actions")
    orders = _typed(values["orders"], list, f"move {name!r}", "a list of orders")
    return Move(
        name,
        _text(values["letter"], f"move {name!r}"),
        {region: Action.parse(_text(act, f"move {name!r}")) for region, act in actions.items()},
        _texts(values["groups"], f"move {name!r}"),
        _texts(values["executed"], f"move {name!r}"),
        tuple(_typed(order, int, f"move {name!r}", "an order") for order in orders),
        _flag(values["fitted"], f"move {name!r}"),
    )


def _measured(raw: object, place: str) -> Measured:
    values = _object(raw, place, _MEASURED)
    steps = _typed(values["steps"], list, place, "a list of steps")
    products = _typed(values["products"], dict, place, "an object of matrices")
    return Measured(
        tuple(_typed(step, int, place, "a step") for step in steps),
        {group: _matrix(of, f"{place}, group {group!r}") for group, of in products.items()},
        _tables(values["gains"], f"{place}, gains"),
        _tables(values["rounding"], f"{place}, rounding"),
        _matrix(values["fit_products"], f"{place}, fit_products"),
    )


def _matrix(raw: object, place: str) -> Matrix:
    rows = _typed(raw, list, place, "a list of rows")
    return tuple(_numbers(row, place) for row in rows)


def _tables(raw: object, place: str) -> Mapping[str, Mapping[str, tuple[float, ...]]]:
    outer = _typed(raw, dict, place, "an object")
    return {
        name: {
            group: _numbers(values, f"{place}, {name!r}, {group!r}")
            for group, values in _typed(inner, dict, f"{place}, {name!r}", "an object").items()
        }
        for name, inner in outer.items()
    }


def _agreeing(table: ErrorTable) -> ErrorTable:
    """The table, where all that it says of a stream has one value for each of its steps."""
    for stream, measured in table.measured.items():
        count = len(measured.steps)
        rows = [*measured.products.values()]
        lists = [row for matrix in rows for row in matrix]
        for tables in (measured.gains, measured.rounding):
            lists += [values for inner in tables.values() for values in inner.values()]
        if any(len(matrix) != count for matrix in rows) or any(len(v) != count for v in lists):
            raise CalibrationError(
                f"error table: stream {stream!r} has {count} steps and values for another number; "
                "measure anew."
            )
        wide = [measured.fit_products, *measured.fit_products] if measured.fit_products else []
        if any(len(row) != 2 * count for row in wide):
            raise CalibrationError(
                f"error table: stream {stream!r} has {count} steps and fit_products of another "
                "size; measure anew."
            )
        known = range(len(table.levels))
        if [*measured.steps] != sorted({*measured.steps} & {*known}):
            raise CalibrationError(
                f"error table: the steps of stream {stream!r} are {list(measured.steps)}; wanted "
                f"rising ones of 0 to {len(table.levels) - 1}."
            )
    return table


def _object(raw: object, place: str, fields: Sequence[str]) -> dict[str, Any]:
    values = cast("dict[str, Any]", _typed(raw, dict, place, "an object"))
    if unknown := sorted(set(values) - set(fields)):
        raise CalibrationError(
            f"error table: {place} has the field {unknown[0]!r}, which is unknown; there are "
            f"{', '.join(sorted(fields))}."
        )
    if missing := sorted(set(fields) - set(values)):
        raise CalibrationError(f"error table: {place} lacks the field {missing[0]!r}; give it.")
    return values


def _typed(value: object, kind: type, place: str, wanted: str) -> Any:
    # In Python true is an integer; in a table it is not.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise CalibrationError(
            f"error table: {place} holds {json.dumps(value)[:40]}; wanted {wanted}."
        )
    return value


def _flag(value: object, place: str) -> bool:
    if not isinstance(value, bool):
        raise CalibrationError(
            f"error table: {place} holds {json.dumps(value)[:40]}; wanted true or false."
        )
    return value


def _text(value: object, place: str) -> str:
    return str(_typed(value, str, place, "a text"))


def _texts(value: object, place: str) -> tuple[str, ...]:
    listed = _typed(value, list, place, "a list of texts")
    return tuple(_text(each, place) for each in listed)


def _numbers(value: object, place: str) -> tuple[float, ...]:
    listed = cast("list[object]", _typed(value, list, place, "a list of numbers"))
    for each in listed:
        good = isinstance(each, (int, float)) and not isinstance(each, bool)
        if not good or not math.isfinite(cast("float", each)):
            raise CalibrationError(
                f"error table: {place} holds {json.dumps(each)[:40]}; wanted finite numbers."
            )
    return tuple(float(cast("float", each)) for each in listed)
