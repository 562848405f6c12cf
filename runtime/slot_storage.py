"""In what a slot is kept: the compute dtype as it is, or fewer bits with scales of their own.

The smaller storages scale in blocks: a run of 64 numbers in the order of memory shares one float32
scale, its largest number over the storage's, so that one large number spoils its neighbours alone
and the size follows from the count of numbers, whatever their shape. What is not finite stays so:
its scale is not. Block scaling: Dettmers et al., "8-bit Optimizers via Block-wise Quantization".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from .errors import PlanError

BLOCK = 64
_SCALE = torch.float32
# Of each smaller storage its dtype, and the number that the largest of a block becomes.
_FORMS: Mapping[str, tuple[torch.dtype, float]] = {
    "float16": (torch.float16, 2.0**15),
    "float8": (torch.float8_e4m3fn, 448.0),
    "int8": (torch.int8, 127.0),
}
STORAGES = ("compute", *_FORMS)


@dataclass(frozen=True)
class Stored:
    """A tensor as a slot keeps it.

    Args:
        payload: the tensor itself where `scales` is None, else its numbers over their scales, one
            row per block, the last one filled up with zeros.
        scales: one per block.
        shape: of the tensor.
        stride: that it comes back with: its own, where it has no gaps.
        dtype: of the tensor.
    """

    payload: Tensor
    scales: Tensor | None
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that it holds."""
        return (self.payload,) if self.scales is None else (self.payload, self.scales)

    @property
    def size_bytes(self) -> int:
        """What it holds, as `stored_bytes` predicts it."""
        return sum(each.numel() * each.element_size() for each in self.tensors)


def check_storage(storage: str, place: str) -> None:
    """Refuses what is no storage.

    Raises:
        PlanError: naming the choices.
    """
    if storage not in STORAGES:
        choices = ", ".join(map(repr, sorted(STORAGES)))
        raise PlanError(f"{place}: storage is {storage!r}; wanted one of {choices}.")


def encode(tensor: Tensor, storage: str) -> Stored:
    """A tensor in a storage; uncopied where that is no smaller than what it is.

    Args:
        tensor: what a step wrote.
        storage: one of `STORAGES`.

    Raises:
        PlanError: where there is no such storage.
    """
    check_storage(storage, "slot")
    if _blocks(tensor.shape, tensor.dtype, storage) is None:
        return Stored(tensor, None, tensor.shape, tensor.stride(), tensor.dtype)
    dtype, top = _FORMS[storage]
    stride = dense_stride(tensor)
    flat = tensor.permute(sorted(range(tensor.ndim), key=lambda axis: -stride[axis])).reshape(-1)
    if lacking := -flat.numel() % BLOCK:
        flat = torch.nn.functional.pad(flat, (0, lacking))
    blocks = flat.view(-1, BLOCK)
    low, high = torch.aminmax(blocks, dim=1, keepdim=True)
    # The smallest normal number: a block of zeros stays one, and no scale is rounded to zero.
    scales = torch.maximum(high, -low).to(_SCALE).div_(top).clamp_(torch.finfo(_SCALE).tiny)
    scaled = torch.div(blocks, scales)
    payload = (scaled.round_() if dtype == torch.int8 else scaled).to(dtype)
    return Stored(payload, scales, tensor.shape, stride, tensor.dtype)


def decode(stored: Stored) -> Tensor:
    """The tensor, of the same shape, strides and dtype; uncopied where nothing was scaled."""
    if stored.scales is None:
        return stored.payload
    wide = torch.promote_types(stored.dtype, _SCALE)
    flat = torch.mul(stored.payload.to(wide), stored.scales).to(stored.dtype)
    return flat.as_strided(stored.shape, stored.stride)


def dense_stride(tensor: Tensor) -> tuple[int, ...]:
    """The strides of a copy without gaps: the tensor's own, where it has none."""
    return torch.empty_like(tensor, device="meta").stride()


def stored_bytes(shape: Sequence[int], dtype: torch.dtype, storage: str) -> int:
    """What a tensor of this shape and dtype takes in a storage, its scales included.

    Raises:
        PlanError: where there is no such storage.
    """
    return sum(stored_parts(shape, dtype, storage))


def stored_parts(shape: Sequence[int], dtype: torch.dtype, storage: str) -> tuple[int, ...]:
    """The bytes of each tensor of `Stored.tensors`.

    Raises:
        PlanError: where there is no such storage.
    """
    check_storage(storage, "slot")
    return _blocks(shape, dtype, storage) or (prod(shape) * dtype.itemsize,)


def _blocks(shape: Sequence[int], dtype: torch.dtype, storage: str) -> tuple[int, int] | None:
    """Bytes of payload and scales; None where they are no smaller, or no real numbers are held."""
    if storage == "compute" or not dtype.is_floating_point:
        return None
    blocks = -(-prod(shape) // BLOCK)
    parts = blocks * BLOCK * _FORMS[storage][0].itemsize, blocks * _SCALE.itemsize
    return parts if sum(parts) < prod(shape) * dtype.itemsize else None
