"""state: the file that lets a calibration go on where it was stopped.

It holds what was found so far, each under a key that says what it depends on, and is replaced whole
after every finding: whoever stops the work, at any point, loses at most the finding under way.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from turbo4d.compiler.errors import CalibrationError

SCHEMA_VERSION = 1
_FIELDS = ("schema_version", "identity", "found")
Found = TypeVar("Found")


class State:
    """Findings by name; in memory alone where there is no file.

    Args:
        path: of the file, which need not exist yet; None for none.
        identity: what all findings depend on: field -> a text that names or digests it.

    Raises:
        CalibrationError: the file is no state of this schema, or is another calibration's.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, str]) -> None:
        self._path = path
        self._identity = dict(identity)
        self._found: dict[str, Any] = {}
        if path is not None and path.exists():
            self._found = _read(path, self._identity)

    def get(self, name: str) -> Any:
        """A finding, None where it was not made yet."""
        return self._found.get(name)

    def put(self, name: str, value: Any) -> None:
        """Keeps a finding, as JSON takes it; it is in the file when this returns."""
        self._found[name] = value
        self._write()

    def once(self, name: str, make: Callable[[], Found]) -> Found:
        """The finding of this name, made where it was not made before."""
        if name not in self._found:
            self.put(name, make())
        return cast("Found", self._found[name])

    def _write(self) -> None:
        if self._path is None:
            return
        values = {
            "schema_version": SCHEMA_VERSION,
            "identity": self._identity,
            "found": self._found,
        }
        write_whole(self._path, json.dumps(values, allow_nan=False) + "\n")


def key(*parts: object) -> str:
    """A short name for all that a finding depends on; equal where the parts are."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def write_whole(path: Path, text: str) -> None:
    """Writes a file under a temporary name beside it, then renames it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path, identity: Mapping[str, str]) -> dict[str, Any]:
    place = f"state {path.name!r}"
    try:
        values = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:  # bytes, digits or nesting among them
        raise CalibrationError(
            f"{place} is no JSON ({error}); remove it, or name another file."
        ) from error
    if not isinstance(values, dict) or "schema_version" not in values:
        raise CalibrationError(
            f"{place} is no state of a calibration; name another file, which need not exist."
        )
    values = cast("dict[str, Any]", values)
    if values["schema_version"] != SCHEMA_VERSION:
        raise CalibrationError(
            f"{place} has schema_version {values['schema_version']!r}; this turbo4d reads "
            f"{SCHEMA_VERSION}. Name another file, or use the turbo4d that wrote it."
        )
    if sorted(values) != sorted(_FIELDS) or not all(
        isinstance(values[name], dict) for name in _FIELDS[1:]
    ):
        raise CalibrationError(
            f"{place} lacks {', '.join(sorted({*_FIELDS} - {*values})) or 'an object'} or has more "
            "than it should; remove it, or name another file."
        )
    for name, wanted in identity.items():
        got = values["identity"].get(name)
        if got != wanted:
            raise CalibrationError(
                f"{place} is of another calibration: its {name} is {got!r} and this one's "
                f"{wanted!r}; name another file."
            )
    return values["found"]
