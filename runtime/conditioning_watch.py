"""Whether a stream's conditioning stays what it was, told without waiting for the device.

A run takes all but the sample and the level to stay the same, computes once what follows from them
alone, and reuses regions that read them. A loop that hands over something else midway, residuals of
a ControlNet or another prompt, would get the first step's numbers. What is the very tensor of the
last call, unwritten, is not looked at; anything else is compared with a copy. On the CPU that is
known before the step runs; elsewhere the answer travels to the host by itself, and a later step
finds it there.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import finite_watch
from .compat import versions_of
from .constants import same_form
from .signature import Signature

_Mark = tuple[weakref.ref[Tensor], int | None]  # which tensor it was, and how often written to


@dataclass(frozen=True)
class _Look:
    names: tuple[str, ...]
    step: int
    differs: Tensor  # on the host: of each input, whether it differed
    arrived: torch.Event | None


class ConditioningWatch:
    """Compares what one stream is conditioned on, call by call.

    Args:
        signature: says which arguments are conditioning.
    """

    def __init__(self, signature: Signature) -> None:
        self._indices = signature.conditioning
        self._names = signature.names
        self._kept: list[Tensor] = []
        self._marks: list[_Mark] = []
        self._looks: list[_Look] = []

    def look(self, args: Sequence[Tensor], step: int) -> None:
        """Compares a call's conditioning with that of the calls before; the first is kept.

        Args:
            args: all flat arguments.
            step: that is about to run.
        """
        given = [args[index].detach() for index in self._indices]
        marks = _marks_of([args[index] for index in self._indices])
        if not self._kept:
            self._kept, self._marks = [tensor.clone() for tensor in given], marks
            return
        differs: dict[torch.device, list[tuple[str, Tensor]]] = {}
        for at, (tensor, mark) in enumerate(zip(given, marks, strict=True)):
            if _unwritten(self._marks[at], mark):
                continue
            name = self._names[self._indices[at]]
            differs.setdefault(tensor.device, []).append((name, _differs(self._kept[at], tensor)))
        self._marks = marks
        for found in differs.values():
            answers = torch.stack([answer for _, answer in found])
            names = tuple(name for name, _ in found)
            self._looks.append(_Look(names, step, *finite_watch.sent_to_host(answers)))

    def found(self) -> tuple[str, int] | None:
        """The first input that differed, and the step at which it did; None where none is known."""
        while self._looks:
            look = self._looks[0]
            if look.arrived is not None and not look.arrived.query():
                return None
            del self._looks[0]
            for name, differs in zip(look.names, look.differs, strict=True):
                if bool(differs):
                    return name, look.step
        return None

    def forget(self) -> None:
        """Lets go of what is kept; the next call's conditioning is taken for the run's."""
        self._kept, self._marks, self._looks = [], [], []


def _differs(kept: Tensor, now: Tensor) -> Tensor:
    """Whether another form or value is handed over, told on the device of the newer one."""
    if not same_form(kept, now):
        return torch.ones((), dtype=torch.bool, device=now.device)
    return (kept != now).any()


def _marks_of(tensors: Sequence[Tensor]) -> list[_Mark]:
    return [(weakref.ref(t), v) for t, v in zip(tensors, versions_of(tensors), strict=True)]


def _unwritten(before: _Mark, now: _Mark) -> bool:
    """Whether it is the same tensor, and known not to have been written to since."""
    return before[0]() is now[0]() and before[1] is not None and before[1] == now[1]
