"""What the runtime had to do differently from the plan, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from .log import say

_KEPT = 200


@dataclass(frozen=True)
class Event:
    """One thing that a user would want to know.

    Args:
        step: at which it happened, None where no step was known.
        stream: in which it happened.
        kind: one word or two, for programs.
        message: a sentence.
    """

    step: int | None
    stream: str | None
    kind: str
    message: str


class Events:
    """A bounded list: after the first 200 only their number is kept.

    Nothing is printed unless the log asks for each decision.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._kinds_once: set[str] = set()
        self._beyond = 0

    def add(
        self, kind: str, message: str, *, step: int | None = None, stream: str | None = None
    ) -> None:
        """Notes an event."""
        say(2, f"{kind}: {message}")
        if len(self._events) < _KEPT:
            self._events.append(Event(step, stream, kind, message))
        else:
            self._beyond += 1

    def add_once(self, kind: str, message: str) -> None:
        """Notes an event unless one of its kind was noted this way before."""
        if kind not in self._kinds_once:
            self._kinds_once.add(kind)
            self.add(kind, message)

    def extend(self, others: Events) -> None:
        """Takes over events that were noted, and so printed, elsewhere."""
        self._events.extend(others)

    def __iter__(self) -> Iterator[Event]:
        yield from self._events
        if self._beyond:
            yield Event(None, None, "more", f"{self._beyond} more events were not kept.")

    def as_dicts(self) -> list[dict[str, str | int | None]]:
        """The events as JSON takes them."""
        return [asdict(event) for event in self]
