"""One call of nano, captured, for scripts that time its variants; and what their reports say."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.flat_args import flat_args
from turbo4d.models.example_inputs import example_inputs
from turbo4d.tools.environment import commit, device_name
from turbo4d.tools.load_model import load_model

DEVICE = torch.device("cpu")


def given(argv: Sequence[str] | None, description: str | None, runs: int) -> argparse.Namespace:
    """Options `runs` and `out`.

    Args:
        argv: the words of the call; None for the process's own.
        description: of the script.
        runs: how many where the call does not say.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=runs)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(argv)


def nano_call() -> tuple[Analysis, list[Tensor]]:
    """Nano in float32 on the CPU as it is captured, and the flat arguments of one call."""
    model = load_model("nano", None, torch.float32, DEVICE)
    call = dict(example_inputs(model.config))
    capture = capture_export(model.network, (), call)
    return analyse(capture), flat_args(capture, (), call)


def facts(runs: int) -> dict[str, Any]:
    """What a figure depends on.

    Args:
        runs: that it is the median of.
    """
    return {
        "model": "nano",
        "device": device_name(DEVICE),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit(),
        "runs": runs,
    }
