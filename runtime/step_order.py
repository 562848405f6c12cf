"""The order of a session's steps: which comes next in each stream, and what is out of order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from operator import index
from typing import SupportsIndex

from .errors import SessionError
from .events import Events

Streams = Mapping[str, Collection[int]]


class StepOrder:
    """Takes the steps as the caller says them, and gives them to the calls.

    Args:
        steps: how many there are, None where nothing tells.
        declared: the streams there are, None where nothing was declared.
        events: where steps that were said but not run are noted.
    """

    def __init__(self, steps: int | None, declared: Streams | None, events: Events) -> None:
        self._steps = steps
        self._declared = declared
        self._events = events
        self._now: tuple[int, str] | None = None
        self._done: dict[str, int] = {}  # per stream the last step that ran
        self._ran = True  # whether the step that was said last was also run

    @property
    def began(self) -> bool:
        """Whether any step was said."""
        return self._now is not None

    def say(self, step: SupportsIndex, stream: str) -> bool:
        """Takes the step that the next call is; gives whether it begins another run of its stream.

        Raises:
            SessionError: where the step is out of order or beyond the last, or the stream was not
                declared.
        """
        step = self._index(step)
        if self._declared is not None and stream not in self._declared:
            raise SessionError(
                f"run.step({step}, stream={stream!r}): the session has streams "
                f"{', '.join(map(repr, sorted(self._declared)))}."
            )
        last = self._done.get(stream)
        if last is not None and 0 < step <= last:
            raise SessionError(
                f"run.step({step}): stream {stream!r} is at step {last}; wanted a later one, "
                "or 0 to begin anew."
            )
        self.note_idle()
        self._now, self._ran = (step, stream), False
        if begins := step == 0 and last is not None:
            del self._done[stream]
        return begins

    def now(self) -> tuple[int, str]:
        """The step and stream that were said last.

        Raises:
            SessionError: where none was.
        """
        if self._now is None:
            raise SessionError("session: `fast` was called before run.step(); say the step first.")
        return self._now

    def done(self, step: int, stream: str) -> None:
        """Notes that a step ran."""
        self._done[stream], self._ran = step, True

    def note_idle(self) -> None:
        """Notes the step that was said last, if it did not run."""
        if self._now is not None and not self._ran:
            step, stream = self._now
            self._ran = True
            self._events.add(
                "idle-step", "the step was said but no engine ran.", step=step, stream=stream
            )

    def _index(self, step: SupportsIndex) -> int:
        """The step as an integer; a sampler's may be numpy's."""
        wanted = range(self._steps) if self._steps is not None else None
        try:
            found = -1 if isinstance(step, bool) else index(step)
        except TypeError:
            found = -1
        if found >= 0 and (wanted is None or found in wanted):
            return found
        last = "" if wanted is None else f" to {wanted[-1]}"
        raise SessionError(f"run.step({step}): wanted an integer from 0{last}.")
