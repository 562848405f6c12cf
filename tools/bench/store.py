"""The file of a benchmark under way: rows as they are measured, so that a later call goes on."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turbo4d.tools.bench.row import RowResult, RowSpec
from turbo4d.tools.failures import CallError
from turbo4d.tools.outputs import output_file

SCHEMA_VERSION = 1
Machine = Mapping[str, Any]


class Store:
    """Rows measured so far, in a file beside the result.

    Rows of another machine, or of other versions of what figures depend on, stand beside no others:
    they are refused, and neither used nor lost. Rows that failed are measured again. The commit may
    differ: each row names its own.

    Args:
        out: the result's file.
        machine: that this call runs on.

    Raises:
        CallError: the file holds something else, or what was measured elsewhere.

    Attributes:
        path: of the file.
        folder: beside it, for what rows share.
    """

    def __init__(self, out: Path, machine: Machine) -> None:
        self.path = out.with_name(f"{out.name}.part")
        self.folder = out.with_name(f"{out.name}.shared")
        self._machine = dict(machine)
        self._rows: dict[str, RowResult] = {}
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            version, machine = found["schema_version"], dict(found["machine"])
            rows = [_row(row) for row in found["rows"]] if version == SCHEMA_VERSION else []
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CallError(
                f"{str(self.path)!r} is no benchmark under way; delete it, or name another --out."
            ) from error
        if differs := difference(version, machine, self._machine):
            raise CallError(
                f"{str(self.path)!r} holds rows of another {differs}; name another --out, or "
                f"delete that file and {self.folder.name!r}."
            )
        self._rows = {row.spec.digest: row for row in rows}

    def get(self, spec: RowSpec) -> RowResult | None:
        """What was measured of a row; None where it is still to be done."""
        row = self._rows.get(spec.digest)
        return None if row is None or row.error is not None else row

    def put(self, row: RowResult) -> None:
        """Keep a row, in place of an earlier one; written at once."""
        self._rows[row.spec.digest] = row
        rows = [dataclasses.asdict(each) for each in self._rows.values()]
        self.folder.mkdir(parents=True, exist_ok=True)
        with output_file(self.path, force=True) as partial:
            partial.write_text(
                text({"schema_version": SCHEMA_VERSION, "machine": self._machine, "rows": rows})
            )

    def failed(self, spec: RowSpec) -> RowResult | None:
        """What became of a row that failed."""
        row = self._rows.get(spec.digest)
        return row if row is not None and row.error is not None else None

    @property
    def done(self) -> int:
        """Rows that were measured."""
        return sum(row.error is None for row in self._rows.values())

    def remove(self) -> None:
        """Once the result is in its place."""
        if self.folder.is_dir():
            shutil.rmtree(self.folder)
        self.path.unlink(missing_ok=True)


def difference(version: object, then: Machine, now: Machine) -> str:
    """The first thing in which what was measured before differs from this call; "" where none.

    Args:
        version: of the file's schema.
        then: the machine that the file names.
        now: the machine of this call.
    """
    if version != SCHEMA_VERSION:
        return f"schema, {version!r}, where this turbo4d writes {SCHEMA_VERSION}"
    for name in sorted({*then} | {*now}):
        if then.get(name) != now.get(name):
            return f"machine: {name} was {then.get(name)!r} and is {now.get(name)!r}"
    return ""


def _row(found: Mapping[str, Any]) -> RowResult:
    given = dict(found)
    given["spec"] = RowSpec.from_json(given["spec"])
    given |= {name: tuple(map(float, given[name])) for name in ("seconds", "baseline")}
    return RowResult(**given)


def text(report: Mapping[str, Any]) -> str:
    """JSON with a line for each row, so that a change of one shows as one."""
    head = [
        f"{json.dumps(name)}: {json.dumps(of)}" for name, of in report.items() if name != "rows"
    ]
    rows = ",\n".join(f"  {json.dumps(row)}" for row in report["rows"])
    return "{\n" + ",\n".join([*head, f'"rows": [\n{rows}\n]']) + "\n}\n"
