"""Which row of how many is under way, and how long the rest may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from turbo4d.tools.bench.row import RowSpec
from turbo4d.tools.bench.store import Store


class Countdown:
    """Says what is going on with the row's number and the expected rest before it.

    Args:
        specs: all rows known so far.
        store: that takes those that are done.
        say: told.
    """

    def __init__(self, specs: Sequence[RowSpec], store: Store, say: Callable[[str], None]) -> None:
        self._specs, self._store, self._say = list(specs), store, say
        self._begun, self._had = time.monotonic(), self._done()

    def more(self, specs: Sequence[RowSpec]) -> Sequence[RowSpec]:
        """Rows that come on top; they are given back."""
        self._specs += [spec for spec in specs if spec not in self._specs]
        return specs

    def say(self, text: str) -> None:
        """What is being done from now on."""
        done, total = self._done(), len(self._specs)
        self._say(f"row {min(done + 1, total)} of {total}{self._rest(done)}: {text}")

    def _rest(self, done: int) -> str:
        if done == self._had:
            return ""
        each_s = (time.monotonic() - self._begun) / (done - self._had)
        minutes = each_s * (len(self._specs) - done) / 60
        return f", about {max(1, round(minutes))} min left"

    def _done(self) -> int:
        kept = (self._store.get(spec) or self._store.failed(spec) for spec in self._specs)
        return sum(row is not None for row in kept)
