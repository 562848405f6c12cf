"""Calls that compute everything, outside any plan: they read and write no slot."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .constants import Change, Constants
from .engine_shelf import CallCounts, EngineShelf
from .events import Events
from .guidance_branches import Told
from .prologue_values import PrologueValues
from .signature import Signature
from .variant_key import VariantKey


class FullCalls:
    """The full variant, with the prologue's values for as long as they are true.

    Each guidance branch has its own. They are computed anew where the conditioning's contents
    changed, a weight is another one or was written to, a run begins, or, where no run can be told,
    nothing shows writes to a weight.

    Args:
        signature: of the denoiser.
        shelf: its engines.
        counts: where calls are counted.
        events: where conditioning that changes during a run is noted.
        exact: whether the exact passes are on.
    """

    def __init__(
        self,
        signature: Signature,
        shelf: EngineShelf,
        counts: CallCounts,
        events: Events,
        *,
        exact: bool,
    ) -> None:
        self.prologue_bytes = 0
        self.takes_prologue = exact and shelf.has_prologue
        self._key = VariantKey((), (), exact)
        self._shelf = shelf
        self._counts = counts
        self._events = events
        self._constants = Constants(signature)  # of the last call of which nothing was told
        self._prologues: dict[int | None, PrologueValues] = {}  # per branch

    def call(self, args: Sequence[Tensor], told: Told | None = None) -> Sequence[Tensor]:
        """Runs one call.

        Args:
            args: all flat arguments, in the signature's order.
            told: which branch of the run that `begin` began last the call is; None where it is not
                known to belong to that run.
        """
        engine = self._shelf.get(self._key)
        prologue = self._values(args, told) if self.takes_prologue else ()
        return self._counts.call(self._key.name, engine, args, prologue, ())[0]

    def begin(self) -> None:
        """Begins a new run: nothing of the last one may be used."""
        for prologue in self._prologues.values():
            prologue.drop()
        self._prologues.clear()
        self._constants.forget()

    def _values(self, args: Sequence[Tensor], told: Told | None) -> tuple[Tensor, ...]:
        branch = None if told is None else told.branch
        if branch not in self._prologues:
            self._prologues[branch] = PrologueValues(self._shelf, self._counts)
        prologue = self._prologues[branch]
        if prologue.held:
            self._events.add_once(
                "sync",
                "the conditioning is compared at each call, which waits for the device; "
                "open turbo4d.session and say the steps.",
            )
            if self._changed(args) if told is None else self._said(told.change):
                prologue.drop()
        if told is None and not prologue.held:
            self._constants.keep(args)
        values = prologue.get(args)
        held = sum(each.size_bytes for each in self._prologues.values())
        self.prologue_bytes = max(self.prologue_bytes, held)
        return values

    def _said(self, change: Change | None) -> bool:
        """Notes what changed in a run; gives whether anything did."""
        if change is not None:
            kind = "new-weights" if change.kind == "weight" else "new-conditioning"
            self._events.add_once(
                kind, f"{change.what} changed in a run; the prologue was computed anew."
            )
        return change is not None

    def _changed(self, args: Sequence[Tensor]) -> bool:
        """Whether values that belong to no run may be out of date."""
        return self._constants.has_unversioned_weights or self._constants.change(args) is not None
