"""Calls that compute everything, outside any plan: they read and write no slot."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .constants import Constants
from .engine_shelf import CallCounts, EngineShelf
from .events import Events
from .prologue_values import PrologueValues
from .signature import Signature
from .variant_key import VariantKey


class FullCalls:
    """The full variant, with the prologue's values for as long as they are true.

    They are computed anew where the conditioning's contents changed, a weight is another one or
    was written to, a run begins, or, where no run can be told, nothing shows writes to a weight.

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
        self._constants = Constants(signature)
        self._prologue = PrologueValues(shelf, counts)

    def call(self, args: Sequence[Tensor], *, in_run: bool) -> Sequence[Tensor]:
        """Runs one call.

        Args:
            args: all flat arguments, in the signature's order.
            in_run: whether the call is known to belong to the run that `begin` began last.
        """
        engine = self._shelf.get(self._key)
        prologue = self._values(args, in_run) if self.takes_prologue else ()
        return self._counts.call(self._key.name, engine, args, prologue, ())[0]

    def begin(self) -> None:
        """Begins a new run: nothing of the last one may be used."""
        self._prologue.drop()
        self._constants.forget()

    def _values(self, args: Sequence[Tensor], in_run: bool) -> tuple[Tensor, ...]:
        if self._prologue.held:
            self._revise(args, in_run)
        if not self._prologue.held:
            self._constants.keep(args)
        values = self._prologue.get(args)
        self.prologue_bytes = max(self.prologue_bytes, self._prologue.size_bytes)
        return values

    def _revise(self, args: Sequence[Tensor], in_run: bool) -> None:
        """Drops the values if they may be out of date."""
        self._events.add_once(
            "sync",
            "the conditioning is compared at each call, which waits for the device; "
            "open turbo4d.session and say the steps.",
        )
        change = self._constants.change(args)
        if change is not None and in_run:
            kind = "new-weights" if change.kind == "weight" else "new-conditioning"
            self._events.add_once(
                kind, f"{change.what} changed in a run; the prologue was computed anew."
            )
        unseen = not in_run and self._constants.has_unversioned_weights
        if change is not None or unseen:
            self._prologue.drop()
