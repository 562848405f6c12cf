"""The device that --device names."""

from __future__ import annotations

import torch
from turbo4d.tools.failures import CallError


def choose_device(name: str) -> torch.device:
    """The device that --device names.

    Raises:
        CallError: torch does not know it or sees none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise CallError(f"--device {name!r} is unknown; choose 'auto', 'cpu' or 'cuda'.")
    if name != "cpu" and not torch.cuda.is_available():
        raise CallError(f"--device {name!r} is not there: torch sees no CUDA device; use 'cpu'.")
    return torch.device(name)
