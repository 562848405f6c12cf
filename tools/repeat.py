"""`turbo4d repeat`: runs one pass on one graph again, from the file that a failure left."""

from __future__ import annotations

import argparse
from pathlib import Path

from turbo4d.tools.failures import CallError
from turbo4d.tools.outcome import Outcome
from turbo4d.tools.parser import Parser

SUMMARY = "Run a pass that failed again, alone, on the graph that it failed on."
EXAMPLE = "turbo4d repeat dump/0123456789abcdef/03.reuse-region.repeat.json"
DETAILS = """\
With TURBO4D_DUMP=FOLDER set, a pass that fails leaves such a file in the folder and says so.
It needs no model and no weights. Exit status 1: the pass fails again, with what it says.
"""


def configure(parser: Parser) -> None:
    """The command's options."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a .repeat.json file of a dump")


def run(args: argparse.Namespace) -> Outcome:
    """Read the file, run the pass, verify the graph.

    Raises:
        CallError: the file holds no pass and graph.
        PassError: the pass fails again.
        VerifyError: the graph that it leaves breaks an invariant.
    """
    from turbo4d.compiler.errors import GraphFileError
    from turbo4d.compiler.repeat import read_repeat

    try:
        repeat = read_repeat(args.file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CallError(f"{args.file}: {(error.strerror or str(error)).lower()}.") from error
    except UnicodeDecodeError as error:
        raise CallError(f"{args.file}: the file is no JSON: it is not UTF-8.") from error
    except GraphFileError as error:
        raise CallError(f"{args.file}: {error}") from error
    report = repeat.run()
    data = {
        "file": str(args.file),
        "pass": repr(repeat.pass_),
        "rewritten": report.rewritten,
        "skipped": [[skip.place, skip.reason] for skip in report.skipped],
        "erased": report.erased,
    }
    lines = [
        f"{report.pass_name} succeeds on this graph: {len(report.rewritten)} places rewritten, "
        f"{len(report.skipped)} left alone, {report.erased} nodes erased; the graph verifies.",
        *report.rewritten,
        *(f"{skip.place} left alone: {skip.reason}" for skip in report.skipped),
    ]
    return Outcome(data, "\n  ".join(lines))
