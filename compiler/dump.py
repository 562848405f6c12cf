"""What `TURBO4D_DUMP` leaves behind: numbered graphs, their differences, and a failed pass."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turbo4d.passes import Pass, PassReport

from .errors import GraphFileError
from .graph_file import graph_json
from .repeat import repeat_text
from .show import diff, graph_text

if TYPE_CHECKING:
    from torch import fx


class Dumper:
    """Writes numbered graphs, their differences, and `report.json` to a folder.

    Args:
        folder: made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.number = 0
        self.text = ""
        self.before: dict[str, Any] | GraphFileError = {}
        self.rows: list[dict[str, object]] = []

    def first(self, gm: fx.GraphModule) -> None:
        """Write the graph that the first pass is given."""
        self.text = graph_text(gm.graph)
        self._write("capture.txt", self.text)

    def begin(self, gm: fx.GraphModule) -> None:
        """Keep the graph as values: a pass that fails leaves it half rewritten."""
        self.number += 1
        try:
            self.before = graph_json(gm)
        except GraphFileError as error:
            self.before = error

    def after(self, pass_: Pass, report: PassReport, gm: fx.GraphModule, elapsed_s: float) -> None:
        """Write what a pass left, and how that differs from what it was given."""
        text, header = graph_text(gm.graph), f"# made by {pass_.name} {pass_.fingerprint}\n"
        self._write(f"{pass_.name}.before.txt", self.text)
        self._write(f"{pass_.name}.after.txt", header + text)
        self._write(f"{pass_.name}.diff", diff(self.text, text))
        self.text = text
        skipped = [[skip.place, skip.reason] for skip in report.skipped]
        self.rows.append(
            {
                "pass": repr(pass_),
                "fingerprint": pass_.fingerprint,
                "rewritten": report.rewritten,
                "skipped": skipped,
                "erased": report.erased,
                "elapsed_s": elapsed_s,
            }
        )
        (self.folder / "report.json").write_text(json.dumps(self.rows, indent=1) + "\n")

    def failed(self, pass_: Pass) -> str:
        """Write the graph that a pass failed on, as it was before, and the pass.

        Returns:
            The command that repeats it, or why there is none.
        """
        name = f"{pass_.name}.repeat.json"
        if isinstance(self.before, GraphFileError):
            return f"{name} cannot be written: {self.before}"
        try:
            text = repeat_text(pass_, self.before)
        except GraphFileError as error:
            return f"{name} cannot be written: {error}"
        path = self._write(name, text)
        return f"repeat with: {_command()} repeat {shlex.quote(str(path))}"

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / f"{self.number:02}.{name}"
        path.write_text(text)
        return path


def _command() -> str:
    """How this machine calls the command line."""
    return "turbo4d" if shutil.which("turbo4d") else f"{sys.executable} -m turbo4d.tools.cli"
