"""stages: how far a calibration is, in percent, and how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

# What each stage takes of the whole, as calibrating nano did; only the time left depends on it.
SHARES: Mapping[str, float] = {
    "learn": 0.03,
    "measure": 0.35,
    "search": 0.22,
    "verify": 0.15,
    "held_out": 0.25,
}


class Stages:
    """Tells what is being done.

    Args:
        say: told a line at each change; None for nobody.
        clock: in seconds.

    Attributes:
        seconds: that each stage took so far.
    """

    def __init__(
        self,
        say: Callable[[str], None] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._clock = clock
        self._begun = clock()
        self._entered = self._begun
        self._stage = next(iter(SHARES))
        self.seconds: dict[str, float] = dict.fromkeys(SHARES, 0.0)

    def at(self, stage: str, share: float, what: str) -> None:
        """Says what is being done.

        Args:
            stage: a key of SHARES.
            share: of the stage that is done.
            what: for people.
        """
        now = self._clock()
        self.seconds[self._stage] += now - self._entered
        self._entered, self._stage = now, stage
        if self._say is None:
            return
        names = [*SHARES]
        before = sum(SHARES[name] for name in names[: names.index(stage)])
        done = before + SHARES[stage] * min(1.0, max(0.0, share))
        left = (now - self._begun) * (1 - done) / done if done > 0 else None
        remaining = "" if left is None or now <= self._begun else f", about {_long(left)} left"
        self._say(f"{done:4.0%} {what}{remaining}")

    def end(self) -> None:
        """Counts the last stage's time."""
        now = self._clock()
        self.seconds[self._stage] += now - self._entered
        self._entered = now


def _long(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
