"""What the script of suite `gpu` has measured so far, kept from call to call."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from turbo4d.tools.bench.row import RowResult, RowSpec
from turbo4d.tools.bench.store import SCHEMA_VERSION, difference
from turbo4d.tools.environment import commit
from turbo4d.tools.failures import CallError

_ROW = ("name", "digest", "settings", "system", "error", "latency_s", "speedup")
_PROBE = ("name", "ok", "reason", "seconds")


class Report:
    """What was measured so far, in a file that is replaced after every line.

    Args:
        path: of the file.
        machine: that measures.
        force: whether what the file holds is dropped.

    Raises:
        CallError: the file holds something else, or what another machine measured; it is left as
            it is.
    """

    def __init__(self, path: Path, machine: dict[str, Any], force: bool) -> None:
        self._path = path
        self.data: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION, "suite": "gpu", "machine": machine,
            "commit": commit(), "smoke": [], "rows": [],
        }  # fmt: skip
        if path.exists() and not force:
            self.data = {**_read(path, machine), "commit": self.data["commit"]}

    def refuse_others(self, specs: Sequence[RowSpec]) -> None:
        """Refuse to measure into a file what it holds of other options under the same name.

        Args:
            specs: all rows of the call's options.

        Raises:
            CallError: naming the option.
        """
        held = {row["name"]: row for row in self.data["rows"]}
        for spec in specs:
            row = held.get(spec.name)
            if row is None or row["digest"] == spec.digest:
                continue
            then, now = row["settings"], spec.settings
            names = [name for name in sorted({*then} | {*now}) if then.get(name) != now.get(name)]
            what = f"{names[0]} {then.get(names[0])!r}" if names else "another number of runs"
            said = f", and this call says {now.get(names[0])!r}" if names else ""
            raise CallError(
                f"--out {str(self._path)!r} holds row {spec.name!r} of {what}{said}; name another "
                "--out, or add --force to drop what it holds."
            )

    def has(self, digest: str) -> bool:
        """Whether a row is done, so that it need not run again."""
        return any(row["digest"] == digest and row.get("done") for row in self.data["rows"])

    def late(self, spec: Any) -> bool:
        """Whether time was up while a row ran."""
        return any(row["digest"] == spec.digest and row.get("late") for row in self.data["rows"])

    def put(self, row: dict[str, Any], done: bool, late: bool = False) -> None:
        """Keeps a row instead of what was known of it."""
        rows = self.data["rows"]
        kept = {**row, "done": done, "late": late}
        for place, old in enumerate(rows):
            if old["name"] == row["name"]:
                rows[place] = kept
                break
        else:
            rows.append(kept)
        self.write()

    def ran_out(self, spec: Any, stage: str) -> None:
        """Notes that time was up while a row ran; what was measured of it stays."""
        error = f"time was up in its {stage}; the next call tries it after all others."
        known = [row for row in self.data["rows"] if row["digest"] == spec.digest]
        measured = [row for row in known if row["latency_s"] is not None]
        row = measured[0] if measured else RowResult(spec=spec, error=error).to_json()
        self.put(row, done=False, late=True)

    def write(self) -> None:
        """Replaces the file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f"{self._path.name}.tmp")
        temporary.write_text(json.dumps(self.data, indent=1) + "\n")
        os.replace(temporary, self._path)


def _read(path: Path, machine: dict[str, Any]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
        version, then = found["schema_version"], dict(found["machine"])
        if found["suite"] != "gpu":
            raise ValueError("another suite")
        if version == SCHEMA_VERSION:
            for rows, names in ((found["rows"], _ROW), (found["smoke"], _PROBE)):
                for row in rows:
                    _ = [row[name] for name in names]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CallError(
            f"--out {str(path)!r} is no report of suite gpu; name another file, or add --force to "
            "replace it."
        ) from error
    if differs := difference(version, then, machine):
        raise CallError(
            f"--out {str(path)!r} holds rows of another {differs}; name another file, or add "
            "--force to drop what it holds."
        )
    return found
