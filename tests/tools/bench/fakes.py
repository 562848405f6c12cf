"""Processes of rows that take no time, and a log of what they were asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from turbo4d.tools.bench.row import RowSpec
from turbo4d.tools.failures import JobError


class FakeProcess:
    """Answers as a row's process does.

    Args:
        spec: the row.
        log: takes (row, word) of each question.
        seconds: system -> what a run takes.
        fails: (system, word) -> the sentence it fails with.
        on_word: called before each answer.
    """

    def __init__(
        self,
        spec: RowSpec,
        log: list[tuple[str, str]],
        seconds: Mapping[str, float],
        fails: Mapping[tuple[str, str], str],
        on_word: Callable[[RowSpec, str], None] = lambda spec, word: None,
    ) -> None:
        self.spec, self.log, self.seconds, self.fails = spec, log, seconds, fails
        self.floor_bytes, self.killed, self.closed = 1, False, False
        self._on_word = on_word

    def wait_ready(self) -> None:
        self._note("prepare")

    def ask(self, word: str) -> dict[str, Any]:
        self._note(word)
        if word == "facts":
            return {"facts": {"psnr_mask_db": 40.0}, "peak_bytes": 100}
        return {"seconds": self.seconds.get(self.spec.system, 1.0)}

    def close(self) -> None:
        self.closed = True

    def kill(self) -> None:
        self.killed = True

    def _note(self, word: str) -> None:
        if self.killed or self.closed:
            raise AssertionError(f"{self.spec.system} was asked {word!r} after its end")
        self.log.append((self.spec.system, word))
        self._on_word(self.spec, word)
        if (self.spec.system, word) in self.fails:
            raise JobError(self.fails[self.spec.system, word])
