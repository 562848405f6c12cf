"""Telling guidance branches apart that are called one by one, by what they are called with.

Pipelines that guide without one large batch (Wan, HunyuanVideo, Flux) call the network several
times at a level: on one sample, with the conditioning of each branch in turn. So a further call at
a level is a branch where its sample is the one that the level began with and its conditioning is
not that of a branch which was called there. Whatever else repeats a level (windows of frames) has
another sample, and is not told; but for the second of a level's two samples in a solver of second
order, such as Heun's, whose branches are others again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from .constants import Change, Constants, same_contents
from .signature import Signature

MOST = 4  # branches of one sample: each keeps slots of its own


@dataclass(frozen=True)
class Told:
    """What one call turned out to be.

    Args:
        branch: its number in the order of a run's first calls, from `MOST` on those of a level's
            second sample; None where it cannot be told.
        change: what the run took for constant of this branch, and no longer is.
    """

    branch: int | None
    change: Change | None = None


class GuidanceBranches:
    """Remembers what each branch of a run was called with.

    Args:
        signature: says which arguments are the sample and the conditioning.
    """

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._known: dict[int, Constants] = {}
        self._called: list[int] = []  # on this sample
        self._sample: Tensor | None = None  # of the last call
        self._second = False  # whether that is its level's second

    def begin(self) -> None:
        """Begins a new run: its branches may be others."""
        self._known, self._called, self._sample = {}, [], None

    def tell(self, args: Sequence[Tensor], *, repeated: bool, twice: bool = False) -> Told:
        """Takes note of one call, which waits for the device.

        Args:
            args: all flat arguments, in the signature's order.
            repeated: whether the call before it had the same level.
            twice: whether a level may have two samples.
        """
        sample = args[self._signature.sample]
        if not repeated or self._sample is None:
            self._take(sample, second=False)
        elif not same_contents(self._sample, sample):
            if self._second or not twice:
                return Told(None)
            self._take(sample, second=True)
        first = MOST * self._second
        own = [branch for branch in range(first, first + MOST) if branch in self._known]
        changes: dict[int, Change] = {}
        for branch in own:
            change = self._known[branch].change(args)
            if change is not None:
                changes[branch] = change
            elif branch not in self._called:
                return self._call(branch)
        if len(changes) < len(own):
            return Told(None)  # as a branch was called already on this sample
        if waiting := [branch for branch in changes if branch not in self._called]:
            self._known[waiting[0]].keep(args)
            return self._call(waiting[0], changes[waiting[0]])
        other_weights = any(change.kind == "weight" for change in changes.values())
        if other_weights or len(own) == MOST:
            return Told(None)
        branch = first + len(own)
        self._known[branch] = Constants(self._signature)
        self._known[branch].keep(args)
        return self._call(branch)

    def _take(self, sample: Tensor, *, second: bool) -> None:
        # A copy: the caller may write into its tensor.
        self._called, self._sample, self._second = [], sample.detach().clone(), second

    def _call(self, branch: int, change: Change | None = None) -> Told:
        self._called.append(branch)
        return Told(branch, change)
