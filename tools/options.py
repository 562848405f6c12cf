"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from turbo4d.tools.failures import CallError
from turbo4d.tools.parser import Parser, choose, shortened, whole_number

MODELS = ("nano", "sv4d", "sv4d2", "sv4d2_8views", "tiny")
PRESETS = ("none", "exact", "quality", "balanced", "fast")
REGIONS = ("block", "chain", "level", "core")
DTYPES = ("fp32", "bf16")
MOST_STEPS, MOST_SCENES = 10_000, 1_000  # of one call
# Lowerings that DESIGN names, and whether this version builds them.
LOWERINGS = {
    "eager": True,
    "inductor": True,
    "native": True,
    "onnxruntime": True,
    "triton-kernels": True,
    "tensorrt-rtx": False,
    "tensorrt": False,
    "torch-tensorrt": False,
    "aot-inductor": False,
}


def add_model(parser: Parser, default: str, dtypes: Sequence[str] = DTYPES) -> None:
    """--model, --checkpoint, --dtype, --seed."""
    others = f"{', '.join(dtypes[1:-1])} or {dtypes[-1]}" if dtypes[2:] else dtypes[1]
    parser.add_argument(
        "--model", default=default, metavar="NAME",
        help=f"{', '.join(MODELS)} or package.module:factory (default: {default})",
    )  # fmt: skip
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights, as .safetensors")
    said = f"fp32 (default){', ' if dtypes[2:] else ' or '}{others}"
    parser.add_argument("--dtype", default="fp32", metavar="TYPE", help=said)
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="N", help="of the noise (default: 0)"
    )


def add_scenes(group: Any) -> None:
    """--scene and --input."""
    group.add_argument(
        "--scene", "--scenes", type=scene_numbers, metavar="N",
        help="held-out scene, or several: 0,2,5 or 0-4 (default: 0)",
    )  # fmt: skip
    group.add_argument("--input", type=Path, metavar="DIR", help="a folder of images, see above")


def add_plan(parser: Parser, *, lowering: bool = True) -> None:
    """--plan, --regions, --steps, and --lowering where asked for."""
    parser.add_argument(
        "--plan", default="balanced", metavar="PLAN",
        help=f"{', '.join(PRESETS)} or a plan file (default: balanced)",
    )  # fmt: skip
    parser.add_argument(
        "--regions", metavar="KINDS",
        help=f"kinds of region a preset may use, of {','.join(REGIONS)} (default: all but block)",
    )  # fmt: skip
    parser.add_argument(
        "--steps",
        type=whole_number(1, MOST_STEPS),
        default=20,
        metavar="N",
        help="denoising steps (default: 20)",
    )
    if lowering:
        parser.add_argument(
            "--lowering", default="eager", metavar="NAME",
            help="what runs the graphs; auto: native where this machine can (default: eager)",
        )  # fmt: skip


def add_adaptive(parser: Parser) -> None:
    """--adaptive."""
    parser.add_argument(
        "--adaptive", action="store_true",
        help="leave the plan where the scene turns out quieter or livelier than a typical one",
    )  # fmt: skip


def check_model(args: argparse.Namespace, dtypes: Sequence[str] = DTYPES) -> None:
    """Refuse an unknown --model or --dtype.

    Args:
        args: the call.
        dtypes: that the command takes.

    Raises:
        CallError: with the choices.
    """
    if ":" not in args.model:
        choose("--model", args.model, MODELS)
    choose("--dtype", args.dtype, dtypes)


def check_plan(args: argparse.Namespace) -> None:
    """Refuse an unknown --plan, --lowering or --regions; `args.regions` becomes a tuple or None.

    Raises:
        CallError: with the choices.
    """
    if hasattr(args, "lowering"):
        _check_lowering(args)
    check_plan_name("--plan", args.plan)
    if args.regions is not None:
        if args.plan in ("none", "exact") or args.plan not in PRESETS:
            raise CallError(
                f"--regions says what a preset may reuse, and --plan {args.plan!r} is none that "
                "reuses by choice; leave --regions out, or choose 'balanced', 'fast' or 'quality'."
            )
        names = tuple(name.strip() for name in args.regions.split(","))
        args.regions = tuple(choose("--regions", name, REGIONS) for name in names)


def _check_lowering(args: argparse.Namespace) -> None:
    choose("--lowering", args.lowering, [*LOWERINGS, "auto"])
    if args.lowering != "auto" and not LOWERINGS[args.lowering]:
        built = ", ".join(repr(name) for name, here in LOWERINGS.items() if here)
        raise CallError(
            f"--lowering {args.lowering!r} is not built yet in this version; choose {built}."
        )


def check_plan_name(option: str, given: str) -> None:
    """Refuse what is neither a preset nor a file.

    Raises:
        CallError: with the choices.
    """
    if given not in PRESETS and not Path(given).is_file():
        if Path(given).suffix or "/" in given:
            raise CallError(f"{option} {given!r} is not a file; name a plan file or a preset.")
        choose(option, given, PRESETS)


def scene_numbers(text: str) -> tuple[int, ...]:
    """An argparse type: `3`, `0,2,5` or `0-4`, without repeats."""
    numbers: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            asked = range(int(first), int(last if dash else first) + 1)
            if asked and len(numbers) + asked[-1] - asked[0] >= MOST_SCENES:
                raise argparse.ArgumentTypeError(
                    f"got {shortened(text)!r}, wanted {MOST_SCENES} scenes at most"
                )
            numbers += asked
    except ValueError:
        numbers = []
    if not numbers or len(set(numbers)) != len(numbers):
        raise argparse.ArgumentTypeError(
            f"got {shortened(text)!r}, wanted scene numbers from 0 such as 3 or 0,2,5 or 0-4"
        )
    return tuple(numbers)
