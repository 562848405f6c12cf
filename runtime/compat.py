# pyright: reportPrivateUsage=false
"""What the runtime uses of torch that torch calls private, with what it relies on."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def versions_of(tensors: Sequence[Tensor]) -> list[int | None]:
    """How often each tensor was written to; None for one that was made under inference mode.

    Relies on `Tensor._version`, the count behind autograd's check of in-place writes, which raises
    for a tensor of inference mode. A write through `tensor.data` is not counted.
    """
    try:
        return [tensor._version for tensor in tensors]
    except RuntimeError:
        return [None if tensor.is_inference() else tensor._version for tensor in tensors]
