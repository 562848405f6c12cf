"""Plans as files: JSON, read strictly and written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .action import Action
from .errors import OptionError, PlanError
from .geometry import Geometry

if TYPE_CHECKING:
    from .plan import Plan, Row

SCHEMA_VERSION = 3
# What a file of an older version, which cannot have said them, means.
_SINCE: Mapping[int, Mapping[str, object]] = {
    2: {"origin": "", "storage": {}},
    3: {"weights_sha256": ""},
}
_WANTED: dict[str, tuple[type | tuple[type, ...], str]] = {
    "name": (str, "a text"),
    "model": (str, "a text"),
    "geometry": (dict, "an object of sizes"),
    "levels": (list, "a list of numbers"),
    "level_unit": (str, "a text"),
    "streams": (dict, "an object of lists of rows"),
    "max_age": (int, "an integer"),
    "max_variants": (int, "an integer"),
    "max_cache_bytes": ((int, type(None)), "an integer or null"),
    "error_budget_db": ((int, float, type(None)), "a number or null"),
    "exact": (bool, "true or false"),
    "origin": (str, "a text"),
    "storage": (dict, "an object of texts"),
    "weights_sha256": (str, "a text"),
    "schema_version": (int, "an integer"),
}
_FIELDS = sorted(_WANTED)


def to_json(plan: Plan) -> str:
    """The file's text; equal plans give equal texts."""
    values = {name: getattr(plan, name) for name in ("schema_version", *_FIELDS)}
    values["geometry"] = plan.geometry.as_dict()
    values["streams"] = {
        stream: [row if row is None else {k: str(v) for k, v in row.items()} for row in rows]
        for stream, rows in sorted(plan.streams.items())
    }
    return json.dumps(values, indent=1, allow_nan=False) + "\n"


def fields_of(text: str) -> dict[str, Any]:
    """What a file's text says of each field of a plan.

    Raises:
        PlanError: where the text is no JSON, of a newer schema, or a field is unknown, missing or
            malformed.
    """
    try:
        raw = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise PlanError(f"plan file: line {error.lineno} is no JSON: {error.msg}.") from error
    except RecursionError as error:
        raise PlanError("plan file: it is nested too deep; this is no plan.") from error
    except ValueError as error:  # an integer of thousands of digits
        raise PlanError(f"plan file: it is no JSON: {error}.") from error
    if not isinstance(raw, dict):
        raise PlanError(f"plan file: it holds a {type(raw).__name__}; wanted an object.")
    values = cast("dict[str, Any]", raw)
    _check_version(values)
    values = _of_this_version(values)
    _check_fields(values)
    try:
        geometry = Geometry.from_mapping(values["geometry"])
    except OptionError as error:
        raise PlanError(f"plan file: {error}") from error
    # The values have been checked one by one; what they mean together, Plan checks.
    values["geometry"] = geometry
    values["levels"] = tuple(_number(step, level) for step, level in enumerate(values["levels"]))
    values["streams"] = {name: _rows(name, rows) for name, rows in values["streams"].items()}
    for region, storage in values["storage"].items():
        _check_type(f"storage of region {region!r}", storage, str, "a text")
    return values


def save(plan: Plan, path: str | os.PathLike[str]) -> None:
    """Writes the plan under a temporary name beside the path, then renames it."""
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(to_json(plan))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _check_version(values: Mapping[str, object]) -> None:
    if "schema_version" not in values:
        raise PlanError("plan file: field 'schema_version' is missing; give it.")
    version = values["schema_version"]
    _check_type("field 'schema_version'", version, *_WANTED["schema_version"])
    if not 1 <= cast("int", version) <= SCHEMA_VERSION:
        raise PlanError(
            f"plan file: schema_version is {version}; this turbo4d reads 1 to {SCHEMA_VERSION}. "
            "Read it with the turbo4d that wrote it, or make the plan anew with this one."
        )


def _of_this_version(values: Mapping[str, Any]) -> dict[str, Any]:
    written = int(values["schema_version"])
    found = dict(values)
    for version, fields_ in _SINCE.items():
        if version <= written:
            continue
        if early := sorted(set(values) & set(fields_)):
            raise PlanError(
                f"plan file: field {early[0]!r} is unknown to schema_version {written}; write "
                f"schema_version {version}."
            )
        found |= fields_
    return {**found, "schema_version": SCHEMA_VERSION}


def _check_fields(values: Mapping[str, object]) -> None:
    if unknown := sorted(set(values) - set(_FIELDS)):
        raise PlanError(
            f"plan file: field {unknown[0]!r} is unknown; there are {', '.join(_FIELDS)}."
        )
    if missing := sorted(set(_FIELDS) - set(values)):
        raise PlanError(f"plan file: field {missing[0]!r} is missing; give it.")
    for name, (kind, wanted) in _WANTED.items():
        _check_type(f"field {name!r}", values[name], kind, wanted)


def _check_type(place: str, value: object, kind: type | tuple[type, ...], wanted: str) -> None:
    # In Python true is an integer; in a plan it is not.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        said = json.dumps(value)
        said = said if len(said) <= 40 else f"{said[:40]}..."
        raise PlanError(f"plan file: {place} is {said}; wanted {wanted}.")


def _number(step: int, level: object) -> float:
    _check_type(f"level {step}", level, (int, float), "a number")
    try:
        return float(cast("float", level))
    except OverflowError:  # an integer
        return math.inf  # which no level is


def _rows(stream: str, rows: object) -> tuple[Row, ...]:
    _check_type(f"stream {stream!r}", rows, list, "a list of rows")
    return tuple(_row(stream, step, row) for step, row in enumerate(cast("list[object]", rows)))


def _row(stream: str, step: int, row: object) -> Row:
    place = f"stream {stream!r}, step {step}"
    _check_type(place, row, (dict, type(None)), "an object of actions or null")
    if row is None:
        return None
    actions: dict[str, Action] = {}
    for region, text in cast("dict[str, object]", row).items():
        _check_type(f"{place}, region {region!r}", text, str, "an action")
        try:
            actions[region] = Action.parse(cast("str", text))
        except PlanError as error:
            raise PlanError(f"plan file: {place}, region {region!r}: {error}") from error
    return actions


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise PlanError(f"plan file: {twice!r} stands twice in one object; keep one.")
    return values


def _no_constant(text: str) -> object:
    raise PlanError(f"plan file: {text} is no JSON number; wanted a finite one.")
