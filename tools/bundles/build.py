"""`turbo4d build`: ahead-of-time engines for every variant of a plan, as a bundle."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from turbo4d.runtime.progress import Progress
from turbo4d.tools import options
from turbo4d.tools.failures import CallError
from turbo4d.tools.outcome import Outcome
from turbo4d.tools.parser import Parser, choose

SUMMARY = "Build engines ahead of time: a bundle that a process loads without the compiler."
EXAMPLE = "turbo4d build --model nano --plan balanced --target onnxruntime --out nano.turbo4d"
TARGETS = (
    "aot-inductor",
    "jetson-orin",
    "jetson-thor",
    "onnxruntime",
    "tensorrt",
    "tensorrt-rtx",
    "torch-tensorrt",
    "triton",
)
FORMS = ("conditional", "variants")
DTYPES = ("fp32", "bf16", "fp16")
DETAILS = f"""\
--target NAME or NAME:DEVICE, of {", ".join(TARGETS)}; tensorrt-rtx
wants the GPU that engines are for, such as tensorrt-rtx:sm89, and builds without one.

--out gets the bundle: manifest.json, and the files that it names. An existing bundle is kept unless
--force; it stays as it is until the new one is whole. What `turbo4d verify` compares with is
recorded from a run of scene 0 on plain torch; --no-reference leaves it out, and builds faster.

--setting, of onnxruntime and triton: weights=shared or packed; of tensorrt and tensorrt-rtx:
weights=inputs or embedded, refit, tf32, weight_streaming and cuda_graphs=no or yes,
streaming_budget_mib=N; of jetson-orin and jetson-thor: workspace_mib=N. Shapes are those of the
model's own sample; a bundle has no others. In bf16 nothing is built for ONNX Runtime on a CPU.

Engines are kept for the next build, in TURBO4D_ENGINE_STORE and up to TURBO4D_ENGINE_STORE_MIB MiB.

--seed is accepted as everywhere; nothing that is built depends on it.
"""


def configure(parser: Parser) -> None:
    """The command's options."""
    options.add_model(parser, default="nano", dtypes=DTYPES)
    options.add_plan(parser, lowering=False)
    parser.add_argument(
        "--target", default="onnxruntime", metavar="TARGET",
        help="what the engines are for (default: onnxruntime)",
    )  # fmt: skip
    parser.add_argument(
        "--setting", action="append", default=[], metavar="NAME=VALUE",
        help="of the target; may come again",
    )  # fmt: skip
    parser.add_argument(
        "--form", default="variants", metavar="FORM",
        help="an engine for each variant: variants (default), or one for all: conditional",
    )  # fmt: skip
    parser.add_argument(
        "--max-memory", type=byte_count, metavar="BYTES",
        help="of the device, such as 8GiB; refuses what would need more",
    )  # fmt: skip
    parser.add_argument(
        "--no-reference", action="store_true", help="record nothing for verify to compare with"
    )
    parser.add_argument("--out", type=Path, metavar="BUNDLE", help="a new folder (required)")
    parser.add_argument("--force", action="store_true", help="replace --out, if it is a bundle")


def run(args: argparse.Namespace) -> Outcome:
    """Build, and say what was built.

    Raises:
        CallError: for a call that cannot be carried out as it stands.
    """
    if args.out is None:
        raise CallError("--out is missing; name a new folder.")
    options.check_model(args, DTYPES)
    options.check_plan(args)
    choose("--form", args.form, FORMS)
    choose("--target", args.target.partition(":")[0], TARGETS)
    args.settings = read_settings(args.setting)
    with Progress() as progress:
        progress.say("loading torch")
        from turbo4d.tools.bundles.building import build

        return build(args, progress.say)


def read_settings(given: Sequence[str]) -> dict[str, str]:
    """What --setting says, each time, as NAME=VALUE.

    Raises:
        CallError: one that is not of that form, or a name that comes twice.
    """
    found: dict[str, str] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not (name and sign and value):
            raise CallError(f"--setting {text!r} is not of the form NAME=VALUE.")
        if name in found:
            raise CallError(f"--setting {name!r} comes twice; give it once.")
        found[name] = value
    return found


_UNITS = {"": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def byte_count(text: str) -> int:
    """An argparse type: `8GiB`, `500MB` or a number of bytes."""
    number = text.rstrip("BGIKMbgikm")
    unit = text[len(number) :].lower()
    if unit in ("b", *_UNITS) and number.strip():
        try:
            found = float(number) * _UNITS.get(unit, 1)
        except ValueError:
            found = 0.0
        if 1 <= found < 2**63:
            return int(found)
    raise argparse.ArgumentTypeError(f"got {text!r}, wanted bytes such as 8GiB or 500MB")
