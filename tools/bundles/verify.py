"""`turbo4d verify`: whether a bundle is whole, and its engines compute what the plain graphs do."""

from __future__ import annotations

import argparse
from pathlib import Path

from turbo4d.runtime.progress import Progress
from turbo4d.tools.bundles.run import add_loading, check_bundle
from turbo4d.tools.outcome import Outcome
from turbo4d.tools.parser import Parser

SUMMARY = "Check a bundle's files, and its engines against what plain torch gave at the build."
EXAMPLE = "turbo4d verify nano.turbo4d --require-run"
DETAILS = """\
A row for each engine: the largest relative error of its outputs and of the slots it writes, on the
inputs that were recorded when the bundle was built, and the error that its precision allows. Then
the whole run: step by step on the recorded inputs, slots from engine to engine; and, for a model of
ours, one sample from noise to latent. An engine that fails is looked into, and the layer named
where its values leave the recorded ones.

An engine that cannot run here is a row "not run", with the reason; where ONNX Runtime can run the
same graph, it stands in, in a row of its own. --require-run makes "not run" a failure. Exit status
1 where anything failed.
"""


def configure(parser: Parser) -> None:
    """The command's options."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a folder from turbo4d build")
    parser.add_argument(
        "--require-run", action="store_true", help="fail where an engine could not run"
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="that the bundle was built with, if any"
    )
    add_loading(parser)


def run(args: argparse.Namespace) -> Outcome:
    """Check, and say what was found.

    Raises:
        CallError: for a call that cannot be carried out as it stands.
    """
    check_bundle(args.bundle)
    with Progress() as progress:
        progress.say("loading torch")
        from turbo4d.tools.bundles.verifying import verify

        return verify(args, progress.say)
