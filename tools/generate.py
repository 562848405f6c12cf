"""`turbo4d generate`: sample a 4D asset, all views of all frames, and judge what the speed cost."""

from __future__ import annotations

import argparse
from pathlib import Path

from turbo4d.runtime.progress import Progress
from turbo4d.tools import options
from turbo4d.tools.failures import CallError
from turbo4d.tools.outcome import Outcome
from turbo4d.tools.outputs import output_folder
from turbo4d.tools.parser import Parser, whole_number

SUMMARY = "Sample a 4D asset: all views of all frames."
EXAMPLE = "turbo4d generate --scene 0 --plan balanced --compare --out out/scene0"
DEFAULT_RUNS = 3
OWNED = (
    "baseline.gif",
    "difference.png",
    "plan.json",
    "report.json",
    "samples.safetensors",
    "sheet.png",
    "turbo.gif",
)
DETAILS = """\
--out gets turbo.gif, sheet.png (rows views, columns frames) and plan.json; with --compare also
baseline.gif, difference.png, samples.safetensors and report.json. Of several scenes the first one's
files lie there, each other's in a folder scene_N.

--input DIR holds frame_0.png, frame_1.png, ... (the object seen from view 0, at every frame) and
view_0.png, view_1.png, ... (every view at frame 0, the cameras evenly spaced on a circle), as many
and as large as the model's own scenes: nano wants 5 frames, 4 views, 64 x 64 pixels, white ground.
"""


def configure(parser: Parser) -> None:
    """The command's options."""
    options.add_model(parser, default="nano")
    options.add_plan(parser)
    options.add_adaptive(parser)
    source = parser.add_mutually_exclusive_group()
    options.add_scenes(source)
    parser.add_argument(
        "--compare", action="store_true", help="also sample uncached, and report speed and error"
    )
    parser.add_argument(
        "--runs", type=whole_number(1), metavar="R",
        help=f"timed runs of each side with --compare (default: {DEFAULT_RUNS})",
    )  # fmt: skip
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="cpu, cuda or auto (default: auto)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="a new folder (required)")
    parser.add_argument(
        "--force", action="store_true", help="replace --out, if turbo4d wrote what it holds"
    )


def run(args: argparse.Namespace) -> Outcome:
    """Sample, judge, write.

    Raises:
        CallError: for a call that cannot be carried out as it stands.
    """
    if args.out is None:  # not argparse's, which would complain before it sees a misspelt option
        raise CallError("--out is missing; name a new folder.")
    if args.runs is not None and not args.compare:
        raise CallError("--runs counts the timed runs of a comparison; add --compare.")
    args.runs = args.runs or DEFAULT_RUNS
    options.check_model(args)
    options.check_plan(args)
    with (
        output_folder(args.out, force=args.force, owned=owned_name) as folder,
        Progress() as progress,
    ):
        progress.say("loading torch")
        from turbo4d.tools.generation import generate

        return generate(args, folder, progress.say)


def owned_name(name: str) -> bool:
    """Whether `generate` writes an entry of this name into its folder."""
    return name in OWNED or name.startswith("scene_")
