"""What a step does with a region."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from .errors import PlanError

ActionKind = Literal["compute", "reuse", "prune", "bypass"]
_SPELLINGS = (
    "bypass, compute, prune(KEEP), reuse, reuse(ORDER), reuse(mix=W,...), reuse(mix=W,...;sample=W)"
)
_NUMBER = r"[0-9.e+-]+"
_TEXT = re.compile(
    r"(?P<plain>compute|bypass|reuse)|reuse\((?P<order>[0-9])\)"
    rf"|reuse\(mix=(?P<mix>{_NUMBER}(,{_NUMBER})*)(;sample=(?P<sample>{_NUMBER}))?\)"
    rf"|prune\((?P<keep>{_NUMBER})\)"
)


@dataclass(frozen=True, order=True)
class Action:
    """One cell of a plan.

    Args:
        kind: `compute` runs the region; `reuse` takes its slot's value instead; `prune` computes
            part of it and takes the rest from the slot; `bypass` leaves it out.
        order: of `reuse`: how many earlier values the slot's value is extrapolated from, less one.
        keep: of `prune`: the share of tokens or groups that is computed, in (0, 1].
        mix: of a fitted `reuse`: the weights of the slot's last values, the oldest first, in place
            of those that extrapolation would give; `order` follows from how many there are.
        sample: of a fitted `reuse` of the whole step: the weight of the sample that the denoiser
            is fed at the step.

    Raises:
        PlanError: where order or keep do not fit the kind.
    """

    kind: ActionKind
    order: int = 0
    keep: float | None = None
    mix: tuple[float, ...] = ()
    sample: float = 0.0

    def __post_init__(self) -> None:
        if self.mix and not self.order:
            object.__setattr__(self, "order", len(self.mix) - 1)
        if self.kind not in ("compute", "reuse", "prune", "bypass"):
            raise PlanError(f"action: {self.kind!r} is unknown; there are {_SPELLINGS}.")
        if not 0 <= self.order <= 9 or (self.order and self.kind != "reuse"):
            raise PlanError(f"action: {self.kind} has order {self.order}; only reuse has, 0 to 9.")
        if (self.kind == "prune") != (self.keep is not None):
            raise PlanError(f"action: {self.kind} has keep {self.keep}; prune has, nothing else.")
        if self.keep is not None and not 0 < self.keep <= 1:
            raise PlanError(
                f"action: prune keeps {self.keep}; wanted a share above 0 and at most 1."
            )
        self._check_mix()

    def _check_mix(self) -> None:
        if not self.mix and not self.sample:
            return
        if self.kind != "reuse" or len(self.mix) != self.order + 1:
            raise PlanError(
                f"action: {self.kind} of order {self.order} has {len(self.mix)} weights; only "
                "reuse has weights, one for each value that it reads."
            )
        if not all(map(math.isfinite, (*self.mix, self.sample))):
            raise PlanError(f"action: the weights {self.mix} and {self.sample} are not all finite.")

    @staticmethod
    def parse(text: str) -> Action:
        """The action that `str` wrote.

        Raises:
            PlanError: where the text is no action.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise PlanError(f"action: {text!r} is unknown; there are {_SPELLINGS}.")
        if match["plain"] is not None:
            return {"compute": COMPUTE, "reuse": REUSE, "bypass": BYPASS}[match["plain"]]
        if match["order"] is not None:
            return Action("reuse", order=int(match["order"]))
        try:
            if match["mix"] is not None:
                mix = tuple(map(float, match["mix"].split(",")))
                return Action("reuse", mix=mix, sample=float(match["sample"] or 0))
            return Action("prune", keep=float(match["keep"]))
        except ValueError as error:
            raise PlanError(
                f"action: {text!r} names no number where it must; there are {_SPELLINGS}."
            ) from error

    @property
    def reads(self) -> bool:
        """Whether the region's slot is read."""
        return self.kind in ("reuse", "prune")

    @property
    def built(self) -> Action:
        """The action as its graph has it: one reuse for every order and all weights."""
        return REUSE if self.kind == "reuse" else self

    def __str__(self) -> str:
        if self.mix:
            sample = f";sample={self.sample!r}" if self.sample else ""
            return f"reuse(mix={','.join(map(repr, self.mix))}{sample})"
        if self.order:
            return f"reuse({self.order})"
        if self.keep is not None:
            return f"prune({self.keep!r})"
        return self.kind


COMPUTE = Action("compute")
REUSE = Action("reuse")
BYPASS = Action("bypass")
