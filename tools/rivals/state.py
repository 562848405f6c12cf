"""The file of a measurement under way: it is the result too, and a later call goes on with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turbo4d.tools.failures import CallError
from turbo4d.tools.outputs import output_file

SCHEMA_VERSION = 1
OURS, UNCACHED = "turbo4d", "uncached"
_EMPTY: Mapping[str, Any] = {
    "plans": {},  # name -> the plan's file, as JSON
    "calibration": {},  # validation scene -> what the rivals see of it
    "screened": {},  # validation scene -> run -> dB in the object
    "signals": {},  # held-out scene -> what the rivals see of it
    "psnr_db": {},  # held-out scene -> run -> dB in the object
    "seconds": {},  # held-out scene -> run -> seconds of each timed run
    "pareto": [],
}


def read(path: Path, what: Mapping[str, Any]) -> dict[str, Any]:
    """What the file holds, or the beginning of a measurement where there is none.

    Args:
        path: of the file.
        what: is measured: a file about something else is refused.

    Raises:
        CallError: the file is no measurement, or one of something else.
    """
    start = {"schema_version": SCHEMA_VERSION, **what}
    if not path.exists():
        return {**start, **json.loads(json.dumps(_EMPTY))}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise CallError(
            f"--out {str(path)!r} is no measurement of rivals, for it is not JSON; name another "
            "file or delete it."
        ) from error
    if not isinstance(found, dict) or not set(_EMPTY) <= found.keys():
        raise CallError(
            f"--out {str(path)!r} is no measurement of rivals; name another file or delete it."
        )
    for field, value in start.items():
        if found.get(field) != value:
            raise CallError(
                f"--out {str(path)!r} was measured with {field} {found.get(field)!r}, this call "
                f"has {value!r}; name another file or delete it."
            )
    return found


def write(path: Path, found: Mapping[str, Any]) -> None:
    """Write the file; a reader sees the old one or the new one, never half."""
    with output_file(path, force=True) as partial:
        partial.write_text(text(found))


def text(found: Mapping[str, Any]) -> str:
    """JSON with a line for each entry of each field, so that a change of one shows as one."""
    return "{\n" + ",\n".join(f"{json.dumps(k)}: {_field(v)}" for k, v in found.items()) + "\n}\n"


def _field(value: Any) -> str:
    if isinstance(value, dict) and value:
        lines = [f"  {json.dumps(key)}: {json.dumps(each)}" for key, each in value.items()]
        return "{\n" + ",\n".join(lines) + "\n}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(f"  {json.dumps(each)}" for each in value) + "\n]"
    return json.dumps(value)
