"""Dataclasses as JSON and back, strictly: what a field's annotation does not allow is refused.

A bundle has thousands of rows, so that each type's reader is made once, and where a value stands is
only put together for an error.
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import torch
from turbo4d.runtime.action import Action
from turbo4d.runtime.errors import BundleError, Turbo4DError

from .dtypes import dtype_named, name_of

_LARGEST = 1 << 62  # what a size or a position may be
_Reader = Callable[[object], Any]


class _MisfitError(Exception):
    """A value that does not fit; on its way out it learns where it stands, the innermost first."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.place: list[str] = []


def plain(value: object) -> object:
    """A dataclass, or what one holds, as JSON has it."""
    if isinstance(value, Action):
        return str(value)
    if isinstance(value, torch.dtype):
        return name_of(value)
    if dataclasses.is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(held) for k, held in cast("Mapping[Any, object]", value).items()}
    if isinstance(value, tuple | list):
        return [plain(held) for held in cast("Sequence[object]", value)]
    return value


def parsed(text: str) -> object:
    """What a text of JSON says.

    Raises:
        BundleError: where it is none, an object has a name twice, or a number is not finite.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise BundleError(f"line {error.lineno} is no JSON: {error.msg}.") from error
    except ValueError as error:  # an integer of thousands of digits
        raise BundleError(f"it is no JSON: {error}.") from error


def decoded(kind: Any, value: object, place: str) -> Any:
    """What a JSON value means where this type is wanted.

    Args:
        kind: a dataclass, or what the annotation of a dataclass's field may be.
        value: as `parsed` gives it.
        place: what it is called in an error.

    Raises:
        BundleError: where it does not fit.
    """
    try:
        return _reader(kind)(value)
    except _MisfitError as error:
        raise BundleError(f"{place}{''.join(reversed(error.place))}{error.text}") from error


@cache
def _reader(kind: Any) -> _Reader:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Action:
        return _parsing(Action.parse)
    if kind is torch.dtype:
        return _parsing(dtype_named)
    if dataclasses.is_dataclass(kind):
        return _dataclass(cast("type", kind))
    if origin in (Union, types.UnionType):
        (inner,) = (_reader(each) for each in args if each is not type(None))
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        return _tuple(args)
    if origin is Mapping:
        return _mapping(args)
    if origin is Literal:
        return _one_of(args)
    return (lambda value: value) if kind is object else _plain(kind)


def _dataclass(kind: type) -> _Reader:
    hints = get_type_hints(kind)
    readers = {each.name: _reader(hints[each.name]) for each in dataclasses.fields(kind)}

    def read(value: object) -> Any:
        fields: dict[str, object] = _typed(dict, value, "an object")
        if fields.keys() != readers.keys():
            unknown, missing = sorted({*fields} - {*readers}), sorted({*readers} - {*fields})
            wrong = f"{unknown[0]!r} is unknown" if unknown else f"{missing[0]!r} is missing"
            raise _MisfitError(f": field {wrong}.")
        held: dict[str, Any] = {}
        name = ""
        try:
            for name, reader in readers.items():
                held[name] = reader(fields[name])
        except _MisfitError as error:
            error.place.append(f".{name}")
            raise
        try:
            return kind(**held)
        except Turbo4DError as error:
            raise _MisfitError(f": {error}") from error

    return read


def _tuple(kinds: Sequence[Any]) -> _Reader:
    same = _reader(kinds[0]) if kinds[-1] is Ellipsis else None
    each = [] if same is not None else [_reader(kind) for kind in kinds]

    def read(value: object) -> tuple[Any, ...]:
        items: list[object] = _typed(list, value, "a list")
        readers = [same] * len(items) if same is not None else each
        if len(readers) != len(items):
            raise _MisfitError(f" has {len(items)} entries; wanted {len(readers)}.")
        held: list[Any] = []
        try:
            for reader, item in zip(readers, items, strict=True):
                held.append(reader(item))
        except _MisfitError as error:
            error.place.append(f"[{len(held)}]")
            raise
        return tuple(held)

    return read


def _mapping(kinds: Sequence[Any]) -> _Reader:
    numbered, reader = kinds[0] is int, _reader(kinds[1])

    def read(value: object) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        entries: dict[str, object] = _typed(dict, value, "an object")
        for key, item in entries.items():
            if numbered and not (key.isascii() and key.isdigit() and len(key) < 10):
                raise _MisfitError(f" has the name {key!r}; wanted a number.")
            try:
                found[int(key) if numbered else key] = reader(item)
            except _MisfitError as error:
                error.place.append(f".{key}")
                raise
        return found

    return read


def _parsing(parse: Callable[[str], Any]) -> _Reader:
    def read(value: object) -> Any:
        try:
            return parse(_typed(str, value, "a text"))
        except Turbo4DError as error:
            raise _MisfitError(f": {error}") from error

    return read


def _one_of(choices: Sequence[Any]) -> _Reader:
    def read(value: object) -> Any:
        if not isinstance(value, str) or value not in choices:
            raise _refusal(value, " or ".join(map(repr, choices)))
        return value

    return read


def _plain(kind: type) -> _Reader:
    """Of texts, truths and numbers; true and false are no numbers here, and none is below 0."""
    if kind in (str, bool):
        wanted = "a text" if kind is str else "true or false"
        return lambda value: _typed(kind, value, wanted)
    taken = int if kind is int else (int, float)
    what = f"{'an integer' if kind is int else 'a number'} from 0 and below {_LARGEST}"

    def read(value: object) -> Any:
        if isinstance(value, bool) or not isinstance(value, taken) or not 0 <= value < _LARGEST:
            raise _refusal(value, what)
        return kind(value)

    return read


def _typed(kind: type, value: object, wanted: str) -> Any:
    if not isinstance(value, kind):
        raise _refusal(value, wanted)
    return value


def _refusal(value: object, wanted: str) -> _MisfitError:
    said = json.dumps(value)
    said = said if len(said) <= 40 else f"{said[:40]}..."
    return _MisfitError(f" is {said}; wanted {wanted}.")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BundleError(f"{twice!r} stands twice in one object.")
    return values


def _no_constant(text: str) -> object:
    raise BundleError(f"{text} is no JSON number; wanted a finite one.")
