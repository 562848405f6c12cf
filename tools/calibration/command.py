"""`turbo4d calibrate`: find the fastest plan that keeps a PSNR, and prove it on held-out scenes."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

from turbo4d.runtime.progress import Progress
from turbo4d.tools import options
from turbo4d.tools.failures import CallError, JobError
from turbo4d.tools.outcome import Outcome
from turbo4d.tools.outputs import output_file
from turbo4d.tools.parser import Parser, decibels, whole_number

SUMMARY = "Find the fastest plan that keeps a PSNR, and run it on held-out scenes."
EXAMPLE = "turbo4d calibrate --model nano --min-psnr 35 --out plan.json"
DEFAULT_SCENES, DEFAULT_HELD_OUT = 4, 16
DETAILS = """\
PSNR is that of the decoded images inside the object, against the uncached sample of the same seed.
The mean over the calibration scenes keeps --min-psnr, the worst of them --worst-slack dB less.

Beside --out, plan.json, are written plan.report.json and plan.html, which draws it. Ctrl-C at any
time loses little: what was found is in --state, and the same command goes on from there. Name one
state for several targets, and they share what was measured.
"""


def configure(parser: Parser) -> None:
    """The command's options."""
    options.add_model(parser, default="nano")
    parser.add_argument(
        "--min-psnr", type=decibels, metavar="DB", help="that samples must keep (required)"
    )
    parser.add_argument(
        "--worst-slack", type=decibels, default=2.0, metavar="DB",
        help="how far below that the worst scene may lie (default: 2)",
    )  # fmt: skip
    parser.add_argument(
        "--max-cache", type=whole_number(0), metavar="BYTES",
        help="what all slots together may hold at any time (default: no bound)",
    )  # fmt: skip
    parser.add_argument(
        "--max-variants", type=whole_number(1), default=8, metavar="N",
        help="graphs that the plan may need (default: 8)",
    )  # fmt: skip
    parser.add_argument(
        "--moves", metavar="NAMES",
        help="what steps may do, such as core,level.1 (default: all that saves time)",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=whole_number(1, options.MOST_STEPS), default=20, metavar="N",
        help="denoising steps (default: 20)",
    )  # fmt: skip
    parser.add_argument(
        "--scenes", type=whole_number(1), default=DEFAULT_SCENES, metavar="N",
        help=f"scenes to measure and choose by (default: {DEFAULT_SCENES})",
    )  # fmt: skip
    parser.add_argument(
        "--held-out", type=whole_number(0), default=DEFAULT_HELD_OUT, metavar="N",
        help=f"held-out scenes to run the plan on (default: {DEFAULT_HELD_OUT})",
    )  # fmt: skip
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="cpu, cuda or auto (default: auto)"
    )
    parser.add_argument(
        "--state", type=Path, metavar="FILE",
        help="keeps what was found (default: plan.state.json beside --out, until it is done)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="the plan, a .json (required)")
    parser.add_argument("--force", action="store_true", help="replace what --out names")


def run(args: argparse.Namespace) -> Outcome:
    """Calibrate, write.

    Raises:
        CallError: for a call that cannot be carried out as it stands.
        JobError: it was interrupted; what was found is kept.
    """
    if args.min_psnr is None:
        raise CallError("--min-psnr is missing; name the dB that samples must keep, such as 35.")
    if args.out is None:
        raise CallError("--out is missing; name a new file, such as plan.json.")
    if args.out.suffix != ".json":
        raise CallError(f"--out {str(args.out)!r} is no .json; name a file such as plan.json.")
    options.check_model(args)
    state = args.state or args.out.with_suffix(".state.json")
    with ExitStack() as stack, Progress() as progress:
        # The plan is entered first, so it appears last: where it is, the others are too.
        plan, report, page = (
            stack.enter_context(output_file(args.out.with_suffix(suffix), force=args.force))
            for suffix in (".json", ".report.json", ".html")
        )
        progress.say("loading torch")
        from turbo4d.tools.calibration.calibration import calibration

        try:
            outcome = calibration(args, state, (plan, report, page), progress.say)
        except KeyboardInterrupt as error:
            raise JobError(
                f"interrupted; what was found is kept in {str(state)!r}: run the same command "
                "again to go on."
            ) from error
    if args.state is None:
        state.unlink(missing_ok=True)
    return outcome
