"""Slots that wait on the host: copies that a device makes beside its computing.

A value that the next step of its stream does not read is copied to pinned memory and let go on the
device; while the step before its next reader computes, it is copied back. On a GPU both run on a
stream of their own: nothing waits for the host, the reader alone waits for the copy it reads, and
the allocator takes a tensor's memory back when its copy is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from .errors import OptionError


class Transfers(Protocol):
    """Copies between a device and the host."""

    def to_host(self, tensor: Tensor) -> Tensor:
        """A copy on the host, there at the latest when it is copied back."""
        ...

    def to_device(self, held: Sequence[Tensor]) -> Arrival:
        """Copies on the device, that are on their way."""
        ...


class Arrival(Protocol):
    """Tensors on their way to a device."""

    def wait(self) -> Sequence[Tensor]:
        """The tensors; what is queued next on the device comes after their copies."""
        ...


class CudaTransfers:
    """Copies on a CUDA stream of their own, from and to pinned memory.

    Args:
        device: of the slots.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._beside = torch.cuda.Stream(device)

    def to_host(self, tensor: Tensor) -> Tensor:
        """Queued behind what computes the tensor."""
        held = torch.empty_like(tensor, device="cpu", pin_memory=True)
        self._beside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._beside):
            held.copy_(tensor, non_blocking=True)
        tensor.record_stream(self._beside)
        return held

    def to_device(self, held: Sequence[Tensor]) -> Arrival:
        """Queued behind their copies to the host, on the same stream."""
        with torch.cuda.stream(self._beside):
            tensors = [each.to(self._device, non_blocking=True) for each in held]
            return _CudaArrival(tensors, self._beside.record_event())


class _CudaArrival:
    def __init__(self, tensors: Sequence[Tensor], copied: torch.Event) -> None:
        self._tensors = tensors
        self._copied = copied

    def wait(self) -> Sequence[Tensor]:
        now = torch.cuda.current_stream(self._tensors[0].device)
        now.wait_event(self._copied)
        for tensor in self._tensors:
            tensor.record_stream(now)
        return self._tensors


def transfers_for(device: torch.device) -> Transfers:
    """What copies between a device and the host.

    Raises:
        OptionError: where the device is none that computes beside its copies.
    """
    if device.type != "cuda":
        raise OptionError(
            f"offload: the slots are on {device.type}; wanted a CUDA device, beside which the host "
            "can hold them. Leave offload off."
        )
    return CudaTransfers(device)
