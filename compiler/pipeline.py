"""Running a tuple of passes, with a look in between; `dump.py` keeps what each left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from turbo4d.passes import Pass, PassReport
from turbo4d.runtime.log import say, wants

from .dump import Dumper
from .show import graph_text

if TYPE_CHECKING:
    from torch import fx

Between = Callable[["fx.GraphModule", PassReport], None]
"""Called after each pass with the graph as it is then."""

HINT = "set TURBO4D_DUMP=FOLDER to get a file and a command that repeat this pass alone"


def run(
    gm: fx.GraphModule, passes: Sequence[Pass], *, between: Between, dump: str = ""
) -> tuple[PassReport, ...]:
    """Apply passes in order; the caller recompiles.

    Args:
        gm: changed in place.
        passes: in order.
        between: called after each.
        dump: what the graph is, in the log; and the name of the folder below `TURBO4D_DUMP` to
            write graphs to, where that is set.

    Raises:
        PassError: a pass cannot go on with the graph. Whatever a pass or `between` raises has a
            note that says how to repeat it.
    """
    folder = os.environ.get("TURBO4D_DUMP")
    dumper = Dumper(Path(folder) / dump) if folder and dump else None
    if dumper:
        dumper.first(gm)
    reports: list[PassReport] = []
    started = time.perf_counter()
    for pass_ in passes:
        with _Repeatable(pass_, gm, dumper):
            begun = time.perf_counter()
            report = pass_.apply(gm)
            elapsed_s = time.perf_counter() - begun
            if dumper:
                dumper.after(pass_, report, gm, elapsed_s)
            _log(report, gm, dump)
            between(gm, report)
        reports.append(report)
    if passes:
        sites = sum(len(report.rewritten) for report in reports)
        elapsed_s = time.perf_counter() - started
        say(1, f"{dump}: {len(passes)} passes rewrote {sites} places in {elapsed_s:.2f} s")
    return tuple(reports)


def _log(report: PassReport, gm: fx.GraphModule, what: str) -> None:
    if not wants(2):
        return
    for line in report.rewritten:
        say(2, f"{what}: {report.pass_name}: {line}")
    for skip in report.skipped:
        say(2, f"{what}: {report.pass_name}: {skip.place} left alone: {skip.reason}")
    if wants(3):
        say(3, f"{what}: after {report.pass_name}\n{graph_text(gm.graph)}")


class _Repeatable:
    """Whatever is raised within has a note that says how to repeat it, a defect included."""

    def __init__(self, pass_: Pass, gm: fx.GraphModule, dumper: Dumper | None) -> None:
        self.pass_, self.dumper = pass_, dumper
        if dumper:
            dumper.begin(gm)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception):
            error.add_note(self.dumper.failed(self.pass_) if self.dumper else HINT)
