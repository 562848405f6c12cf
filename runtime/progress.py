"""What a long job is doing, on stderr: shown after two seconds, and only to a terminal."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

QUIET_S = 2.0
_TICK_S = 0.5


class Progress:
    """A line on stderr that says what is going on and for how long; a context manager.

    A thread keeps the seconds running, since one step (a capture) may take half a minute. Where
    stderr is not a terminal there is no thread and nothing is printed.
    """

    def __init__(self) -> None:
        self._text = ""
        self._begun = time.monotonic()
        self._shown = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def say(self, text: str) -> None:
        """What is being done from now on."""
        self._text = text

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self._thread = threading.Thread(target=self._tick, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def _tick(self) -> None:
        while not self._stop.wait(_TICK_S):
            seconds = time.monotonic() - self._begun
            if seconds >= QUIET_S and self._text:
                self._shown = True
                print(
                    f"\r\033[K{self._text} ({seconds:.0f} s)", end="", file=sys.stderr, flush=True
                )
