"""`turbo4d explain`: what the compiler sees in a model, and what a plan would do with it."""

from __future__ import annotations

import argparse
from pathlib import Path

from turbo4d.runtime.progress import Progress
from turbo4d.tools import options
from turbo4d.tools.failures import CallError
from turbo4d.tools.outcome import Outcome
from turbo4d.tools.outputs import output_file
from turbo4d.tools.parser import Parser, choose

SUMMARY = "Show a model's sites, regions and FLOPs, and the plan as a picture; needs no weights."
EXAMPLE = "turbo4d explain --model sv4d --plan balanced --out sv4d.html"
DETAILS = """\
A model of your own: --model package.module:factory, where factory() returns an nn.Module whose
method turbo4d_inputs() returns the positional and the keyword arguments of one call. Put both on
the "meta" device and no memory is needed.

--against PLAN prints, instead of the findings, what --plan does otherwise than that plan, step by
step; --json holds both.

--seed and --lowering are accepted as everywhere; nothing that explain shows depends on them.
"""
SUFFIXES = (".html", ".json", ".png")
AXES = ("batch", "frames", "height", "views", "width")


def configure(parser: Parser) -> None:
    """The command's options."""
    options.add_model(parser, default="nano")
    options.add_plan(parser)
    parser.add_argument(
        "--geometry", type=geometry, metavar="AXES",
        help="what the shapes leave open, such as views=8,frames=5",
    )  # fmt: skip
    parser.add_argument(
        "--against", metavar="PLAN", help="a plan to compare --plan with: what changes, per step"
    )
    parser.add_argument(
        "--machine", metavar="NAME",
        help="whose times are predicted: a GPU, from its data sheet (default: this machine, "
        "measured in a second)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="a .html, .png or .json file")
    parser.add_argument("--force", action="store_true", help="replace --out if it exists")


def run(args: argparse.Namespace) -> Outcome:
    """Explain, print, and write --out.

    Raises:
        CallError: for a call that cannot be carried out as it stands.
    """
    options.check_model(args)
    options.check_plan(args)
    if args.against is not None:
        options.check_plan_name("--against", args.against)
    if args.machine is not None:
        from turbo4d.compiler.machine import GPUS

        choose("--machine", args.machine, sorted(GPUS))
    if args.out is None:
        return _explain(args, None)
    if args.out.suffix not in SUFFIXES:
        raise CallError(f"--out {str(args.out)!r} must end in one of {', '.join(SUFFIXES)}.")
    with output_file(args.out, force=args.force) as partial:
        return _explain(args, partial)


def _explain(args: argparse.Namespace, partial: Path | None) -> Outcome:
    with Progress() as progress:
        progress.say(f"capturing {args.model}")
        from turbo4d.tools.explanation import explain

        return explain(args, partial)


def geometry(text: str) -> dict[str, int]:
    """An argparse type: `views=8,frames=5` as a mapping.

    Raises:
        CallError: for an axis that is none, or a size that is no positive whole number.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        axis, _, size = part.partition("=")
        choose("--geometry: axis", axis.strip(), AXES)
        if not size.strip().isdecimal() or int(size) < 1:
            raise CallError(f"--geometry: {axis} is {size!r}; wanted a positive whole number.")
        sizes[axis.strip()] = int(size)
    return sizes
