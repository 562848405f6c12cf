"""Running a tuple of passes, with a look in between, and dumping what each left."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from turbo4d.passes import Pass, PassReport

from .show import diff, graph_text

if TYPE_CHECKING:
    from torch import fx

Between = Callable[["fx.GraphModule", PassReport], None]
"""Called after each pass with the graph as it is then."""


def run(
    gm: fx.GraphModule, passes: Sequence[Pass], *, between: Between, dump: str = ""
) -> tuple[PassReport, ...]:
    """Apply passes in order; the caller recompiles.

    Args:
        gm: changed in place.
        passes: in order.
        between: called after each.
        dump: name of the folder below `TURBO4D_DUMP` to write graphs to, where that is set.
    """
    folder = os.environ.get("TURBO4D_DUMP")
    dumper = Dumper(Path(folder) / dump) if folder and dump else None
    if dumper:
        dumper.graph("capture", gm)
    reports: list[PassReport] = []
    for pass_ in passes:
        begun = time.perf_counter()
        report = pass_.apply(gm)
        elapsed_s = time.perf_counter() - begun
        if dumper:
            dumper.after(pass_, report, gm, elapsed_s)
        between(gm, report)
        reports.append(report)
    return tuple(reports)


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
        self.rows: list[dict[str, object]] = []

    def graph(self, name: str, gm: fx.GraphModule) -> None:
        """Write the graph as it is now."""
        self.text = graph_text(gm.graph)
        self._write(f"{name}.txt", self.text)
        self.number += 1

    def after(self, pass_: Pass, report: PassReport, gm: fx.GraphModule, elapsed_s: float) -> None:
        """Write what a pass left, and how that differs from what it was given."""
        text, header = graph_text(gm.graph), f"# made by {pass_.name} {pass_.fingerprint}\n"
        self._write(f"{pass_.name}.before.txt", self.text)
        self._write(f"{pass_.name}.after.txt", header + text)
        self._write(f"{pass_.name}.diff", diff(self.text, text))
        self.text = text
        self.number += 1
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

    def _write(self, name: str, text: str) -> None:
        (self.folder / f"{self.number:02}.{name}").write_text(text)
