"""The command line: `turbo4d <command>` parses, dispatches, and turns failures into statuses."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import TracebackType

from turbo4d.tools.failures import DONE, FAILED, JobError, foreseen, remedies, sentence, status_of
from turbo4d.tools.outcome import Outcome
from turbo4d.tools.parser import Parser, PrintVersion, did_you_mean

# Command -> the module that configures and runs it: SUMMARY, EXAMPLE, configure(parser), run(args).
# A command module imports torch only inside `run`, so that `--help` answers at once.
COMMANDS: Mapping[str, str] = {
    "generate": "turbo4d.tools.generate",
    "explain": "turbo4d.tools.explain",
    "calibrate": "turbo4d.tools.calibration.command",
    "build": "turbo4d.tools.bundles.build",
    "run": "turbo4d.tools.bundles.run",
    "verify": "turbo4d.tools.bundles.verify",
    "bench": "turbo4d.tools.bench.command",
    "doctor": "turbo4d.tools.doctor",
    "repeat": "turbo4d.tools.repeat",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after `turbo4d`; None takes them from the process, and then also hides the
            traceback of an error that nobody foresaw.

    Returns:
        Exit status: 0 done, 1 the job failed, 2 the call was wrong.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    if argv is None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
        if not debug:
            sys.excepthook = _unforeseen
    try:
        return _run(words)
    except BrokenPipeError:  # `turbo4d ... | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (Exception, KeyboardInterrupt) as error:
        known = foreseen(error)
        if known is None:
            raise
        if debug:
            traceback.print_exception(error)
        print("\n".join([f"turbo4d: {sentence(known)}", *remedies(known)]), file=sys.stderr)
        return status_of(known) or FAILED


def _run(words: Sequence[str]) -> int:
    parser, commands = _parsers()
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        hint = did_you_mean(words[0], COMMANDS)
        parser.error(f"command {words[0]!r} is unknown{hint}; choose {', '.join(sorted(COMMANDS))}")
    args, left_over = parser.parse_known_args(words)
    if args.command is None:
        parser.refuse_unknown(left_over)
        parser.print_help()
        return DONE
    commands[args.command].refuse_unknown(left_over)
    outcome: Outcome = import_module(COMMANDS[args.command]).run(args)
    print(json.dumps(outcome.data, indent=1) if args.json else outcome.text)
    sys.stdout.flush()
    if outcome.failure is not None:
        raise JobError(outcome.failure)
    return DONE


def _parsers() -> tuple[Parser, dict[str, Parser]]:
    parser = Parser(
        prog="turbo4d",
        description="A compiler for 4D diffusion: samples faster, and prints the error it admits.",
        epilog="example: turbo4d generate --scene 0 --compare --out out/scene0\n"
        "exit status: 0 done, 1 the job failed, 2 the call was wrong",
    )
    parser.add_argument("--version", action=PrintVersion, nargs=0, help="print the version")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    commands: dict[str, Parser] = {}
    for name, home in COMMANDS.items():
        module = import_module(home)
        command = subparsers.add_parser(
            name,
            help=module.SUMMARY,
            description=module.SUMMARY,
            epilog=f"{module.DETAILS}\nexample: {module.EXAMPLE}".lstrip(),
        )
        module.configure(command)
        command.add_argument("--json", action="store_true", help="print the result as JSON")
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        commands[name] = command
    return parser, commands


def _unforeseen(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    print(
        f"turbo4d: this is a defect of turbo4d ({kind.__name__}: {sentence(error)}); "
        "run the command again with --debug and report what it shows.",
        file=sys.stderr,
    )


if __name__ == "__main__":
    sys.exit(main())
