"""What the script of suite `gpu` has measured so far, kept from call to call."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from turbo4d.tools.bench.row import RowResult
from turbo4d.tools.bench.store import SCHEMA_VERSION
from turbo4d.tools.environment import commit


class Report:
    """What was measured so far, in a file that is replaced after every line.

    Args:
        path: of the file.
        machine: that measures; rows of another one are dropped.
    """

    def __init__(self, path: Path, machine: dict[str, Any], force: bool) -> None:
        self._path = path
        self.data: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION, "suite": "gpu", "machine": machine,
            "commit": commit(), "smoke": [], "rows": [],
        }  # fmt: skip
        if path.is_file() and not force:
            found = json.loads(path.read_text())
            if (found["schema_version"], found["machine"]) == (SCHEMA_VERSION, machine):
                self.data = {**found, "commit": self.data["commit"]}

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
