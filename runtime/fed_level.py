"""The noise level that a call is fed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .signature import Signature


def read_level(signature: Signature, args: Sequence[Tensor]) -> float | tuple[str, str]:
    """The level in the model's own unit, which waits for the device.

    Args:
        signature: says which argument is the level.
        args: all flat arguments.

    Returns:
        The level; or, where there is not one, the kind of an event and its message.
    """
    index = signature.level
    if index is None:
        return (
            "no-level",
            "no input is the noise level, so no step can be told (a block by itself has none)",
        )
    # Guidance branches and frames each have a copy of the one level.
    lowest, highest = torch.aminmax(args[index].detach().cpu())
    if lowest != highest:
        return "mixed-levels", f"input {signature.names[index]!r} holds several noise levels"
    return float(lowest)
