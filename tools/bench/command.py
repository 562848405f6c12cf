"""`turbo4d bench`: turbo4d beside what people would use instead, on the same work in one run."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

from turbo4d.runtime.progress import Progress
from turbo4d.tools.bench.suite import SUITES
from turbo4d.tools.failures import CallError
from turbo4d.tools.outcome import Outcome
from turbo4d.tools.outputs import output_file
from turbo4d.tools.parser import Parser, choose, whole_number

DEVICES = ("auto", "cpu", "cuda")
SUMMARY = "Measure turbo4d beside what people would use instead, on the same work."
EXAMPLE = "turbo4d bench --suite cpu --out out/bench-cpu.json"
DETAILS = """\
Suites: cpu (nano: eager, inductor, turbo4d's presets, policies of others, fewer steps), peers
(packages of others on models that they cover), gpu (full-size sv4d on a GPU), soak (hundreds of
sessions: does memory stay flat).

Every row has a process of its own; those that are compared run in turn, and a row that fails says
why while the others go on. FILE.json.part keeps what was measured: the same command goes on after
an interruption. --out gets the report, and beside it a picture, FILE.png; with --profile also
FILE.trace.json, which Perfetto and chrome://tracing open.

A row's name is group/system/lowering/label; --rows '20-steps/turbo4d:*' runs those rows, and the
baseline of their group.
"""


def configure(parser: Parser) -> None:
    """The command's options."""
    count = whole_number(1)
    parser.add_argument("--suite", metavar="NAME", help=f"{', '.join(sorted(SUITES))} (required)")
    parser.add_argument("--rows", metavar="GLOB", help="only rows whose name matches")
    parser.add_argument("--quick", action="store_true", help="fewer rows and fewer runs")
    parser.add_argument("--runs", type=count, metavar="N", help="timed runs of each row")
    parser.add_argument(
        "--scenes", type=count, default=2, metavar="N",
        help="held-out scenes, gone through in turn (default: 2)",
    )  # fmt: skip
    parser.add_argument(
        "--sessions", type=count, default=500, metavar="N", help="of a soak (default: 500)"
    )
    parser.add_argument("--model", metavar="NAME", help="instead of the suite's own")
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="N", help="of the noise (default: 0)"
    )
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="cpu, cuda or auto (default: auto)"
    )
    parser.add_argument(
        "--together", type=whole_number(2), default=12, metavar="N",
        help="processes alive at once, of which one runs (default: 12)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=whole_number(1, 1_000_000), default=1800, metavar="SECONDS",
        help="for which one step of a row may take (default: 1800)",
    )  # fmt: skip
    parser.add_argument(
        "--profile", action="store_true", help="also where the time goes, as a table and a trace"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="a new file (required)")
    parser.add_argument("--force", action="store_true", help="replace --out")


def run(args: argparse.Namespace) -> Outcome:
    """Measure, and write the report, its table and its picture.

    Raises:
        CallError: for a call that cannot be carried out as it stands.
        JobError: it was interrupted.
    """
    if args.suite is None:
        raise CallError(f"--suite is missing; choose {', '.join(sorted(SUITES))}.")
    choose("--suite", args.suite, tuple(SUITES))
    if args.out is None:
        raise CallError("--out is missing; name a new file, such as out/bench.json.")
    if args.out.suffix != ".json":
        raise CallError(f"--out {str(args.out)!r} is no .json file; name one.")
    choose("--device", args.device, DEVICES)
    suffixes = (".json", ".png", *((".trace.json",) if args.profile else ()))
    with ExitStack() as stack, Progress() as progress:
        # The report is entered first, so it appears last: where it is, the others are too.
        paths = [
            stack.enter_context(output_file(args.out.with_suffix(suffix), force=args.force))
            for suffix in suffixes
        ]
        progress.say("loading torch")
        from turbo4d.tools.bench.benchmark import benchmark

        outcome, let_go = benchmark(args, paths, progress.say)
    let_go()
    return outcome
