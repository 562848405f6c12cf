"""`turbo4d run`: sample a 4D asset with the engines of a bundle, without the compiler."""

from __future__ import annotations

import argparse
from pathlib import Path

from turbo4d.runtime.progress import Progress
from turbo4d.tools import options
from turbo4d.tools.failures import CallError
from turbo4d.tools.outcome import Outcome
from turbo4d.tools.outputs import output_folder
from turbo4d.tools.parser import Parser, whole_number

SUMMARY = "Sample a 4D asset from a bundle, without the compiler."
EXAMPLE = "turbo4d run nano.turbo4d --scene 0 --out out/scene0"
OWNED = ("plan.json", "report.json", "sheet.png", "turbo.gif")
DETAILS = """\
--out gets turbo.gif, sheet.png and plan.json, as from `turbo4d generate`; report.json too, with
--compare-with: it says how close the images are to those that `turbo4d generate --compare` wrote
into that folder (samples.safetensors, turbo's), of the same model, scenes, seed and steps.

Steps and plan are the bundle's. --allow-native lets a bundle run code of its own, as aot-inductor's
packages do: only for a bundle that you trust as you would a program.
"""


def configure(parser: Parser) -> None:
    """The command's options."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a folder from turbo4d build")
    source = parser.add_mutually_exclusive_group()
    options.add_scenes(source)
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="N", help="of the noise (default: 0)"
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="that the bundle was built with, if any"
    )
    add_loading(parser)
    parser.add_argument(
        "--compare-with", type=Path, metavar="DIR", help="a folder from generate --compare"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="a new folder (required)")
    parser.add_argument(
        "--force", action="store_true", help="replace --out, if turbo4d wrote what it holds"
    )


def add_loading(parser: Parser) -> None:
    """--allow-native, --strict, --device: how a bundle is loaded."""
    parser.add_argument(
        "--allow-native", action="store_true", help="let the bundle run code of its own"
    )
    parser.add_argument(
        "--strict", action="store_true", help="only on the engines that the bundle was built for"
    )
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="cpu, cuda or auto (default: auto)"
    )


def run(args: argparse.Namespace) -> Outcome:
    """Load, sample, write.

    Raises:
        CallError: for a call that cannot be carried out as it stands.
    """
    if args.out is None:
        raise CallError("--out is missing; name a new folder.")
    check_bundle(args.bundle)
    with (
        output_folder(args.out, force=args.force, owned=owned_name) as folder,
        Progress() as progress,
    ):
        progress.say("loading torch")
        from turbo4d.tools.bundles.running import run_bundle

        return run_bundle(args, folder, progress.say)


def check_bundle(path: Path) -> None:
    """Refuse what is no folder, before torch is loaded.

    Raises:
        CallError: it is none.
    """
    if not path.is_dir():
        raise CallError(f"{str(path)!r} is no bundle; name a folder that turbo4d build wrote.")


def owned_name(name: str) -> bool:
    """Whether `run` writes an entry of this name into its folder."""
    return name in OWNED or name.startswith("scene_")
