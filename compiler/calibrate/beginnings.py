"""beginnings: what plans that begin alike gave up to where they part, so that it is run once.

Plans that are compared differ in a step or two, mostly late ones.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from turbo4d.runtime.action import Action

Beginning = tuple[object, ...]  # how slots are kept, then each call and what it does
MOST = 64  # calls whose outputs are held; a few runs' worth


@dataclass(frozen=True)
class Given:
    """What a call gave.

    Args:
        fit: its weights; None where it was computed.
        outputs: of each example.
    """

    fit: Action | None
    outputs: tuple[Tensor, ...]


class Beginnings:
    """The calls of the plans that were run last.

    Args:
        most: calls to be held.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._held: OrderedDict[Beginning, Given] = OrderedDict()

    def get(self, beginning: Beginning) -> Given | None:
        """What the last call of a beginning gave; None where it is not held."""
        if beginning in self._held:
            self._held.move_to_end(beginning)
        return self._held.get(beginning)

    def put(self, beginning: Beginning, given: Given) -> None:
        """Holds what the last call of a beginning gave."""
        self._held[beginning] = given
        while len(self._held) > self._most:
            self._held.popitem(last=False)
