"""Whether slots hold NaN or infinity, told without waiting for the device.

Each tensor that is written is read once more, for its smallest and largest number; those travel to
the host by themselves, and are looked at when a later step finds them there. On the CPU that is the
next step, before anything is read. On another device it may be some steps later, since the host
runs ahead of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from .errors import OptionError

# What a session does about a slot that is not finite: computes it anew and notes an event, raises
# an error, or does not look.
Nonfinite = Literal["refresh", "raise", "ignore"]


def check_nonfinite(given: object) -> None:
    """Refuses what is no choice.

    Raises:
        OptionError: naming the choices.
    """
    if given not in get_args(Nonfinite):
        choices = ", ".join(map(repr, sorted(get_args(Nonfinite))))
        raise OptionError(f"nonfinite is {given!r}; wanted one of {choices}.")


@dataclass(frozen=True)
class _Look:
    names: tuple[str, ...]
    step: int
    bounds: Tensor  # on the host: of each tensor its smallest and its largest number
    arrived: torch.Event | None


class FiniteWatch:
    """Looks at what one stream writes into its slots."""

    def __init__(self) -> None:
        self._looks: list[_Look] = []

    def look(self, names: Sequence[str], tensors: Sequence[Tensor], step: int) -> None:
        """Begins to look at what a step wrote.

        Args:
            names: of the slots, one per tensor.
            tensors: what was written.
            step: that wrote it.
        """
        by_device: dict[torch.device, list[tuple[str, Tensor]]] = {}
        for name, tensor in zip(names, tensors, strict=True):
            numbers = torch.view_as_real(tensor) if tensor.is_complex() else tensor
            if numbers.is_floating_point() and numbers.numel():
                by_device.setdefault(numbers.device, []).append((name, numbers.detach()))
        for looked in by_device.values():
            bounds = torch.stack([bound for each in looked for bound in torch.aminmax(each[1])])
            names = tuple(name for name, _ in looked)
            self._looks.append(_Look(names, step, *sent_to_host(bounds)))

    def found(self, *, wait: bool = False) -> list[tuple[str, int]]:
        """The slots that were not finite, with the step that wrote them; each is told once.

        Args:
            wait: for the device, so that nothing is left to be looked at.
        """
        bad: dict[tuple[str, int], None] = {}
        while self._looks:
            look = self._looks[0]
            if look.arrived is not None:
                if wait:
                    look.arrived.synchronize()
                elif not look.arrived.query():
                    break
            del self._looks[0]
            finite = look.bounds.isfinite().view(-1, 2).all(1)
            if not bool(finite.all()):
                told = zip(look.names, finite, strict=True)
                bad |= {(name, look.step): None for name, is_finite in told if not bool(is_finite)}
        return [*bad]

    def forget(self) -> None:
        """Looks no more at what was written so far."""
        self._looks.clear()


def sent_to_host(bounds: Tensor) -> tuple[Tensor, torch.Event | None]:
    """Numbers on their way to the host, and what tells that they have arrived."""
    if bounds.device.type == "cpu":
        return bounds, None
    host = torch.empty_like(bounds, device="cpu", pin_memory=True)
    host.copy_(bounds, non_blocking=True)
    arrived = torch.Event(bounds.device)
    arrived.record()
    return host, arrived
