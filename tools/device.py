"""The device that --device names."""

from __future__ import annotations

import re

import torch
from turbo4d.tools.failures import CallError


def choose_device(name: str) -> torch.device:
    """The device that --device names.

    Raises:
        CallError: torch does not know it or sees none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", name):
        raise CallError(f"--device {name!r} is unknown; choose 'auto', 'cpu' or 'cuda'.")
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise CallError(f"--device {name!r} is not there: torch sees no CUDA device; use 'cpu'.")
    device, count = torch.device(name), torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise CallError(
            f"--device {name!r} is not there: torch sees {count} CUDA devices, from 'cuda:0'."
        )
    return device
