"""A row under way: its process, what its runs took, and why it failed if it did."""

from __future__ import annotations

from collections.abc import Callable

from turbo4d.tools.bench.process import RowProcess
from turbo4d.tools.bench.row import RowResult, RowSpec
from turbo4d.tools.failures import JobError

Say = Callable[[str], None]
Opens = Callable[[RowSpec], RowProcess]


class Running:
    """One row.

    Args:
        spec: the row.
        opens: starts its process.
        commit: of the checkout.
        say: told what is going on.

    Attributes:
        spec: as given.
        seconds: of each timed run.
        baseline: of the baseline in the same rounds.
        error: why it failed; None while it did not.
        peak_bytes: resident at most, once it is done.
    """

    def __init__(self, spec: RowSpec, opens: Opens, commit: str | None, say: Say) -> None:
        self.spec, self._commit, self._say = spec, commit, say
        self.seconds: list[float] = []
        self.baseline: list[float] = []
        self.error: str | None = None
        self.peak_bytes = 0
        self._first_call_s: float | None = None
        self._tell("starting")
        self._process = opens(spec)

    def wait_ready(self) -> None:
        """Until its job is made."""
        self._tell("loading")
        try:
            self._process.wait_ready()
        except JobError as error:
            self._failed(error)

    def warm_up(self) -> None:
        """Until the row can be timed."""
        if self.error is not None:
            return
        try:
            self._tell("first run")
            self._first_call_s = self._process.ask("first")["seconds"]
            for turn in range(self.spec.warmups):
                self._tell(f"warm-up {turn + 1} of {self.spec.warmups}")
                self._process.ask("run")
        except JobError as error:
            self._failed(error)

    def run(self, turn: int) -> float | None:
        """Seconds of one timed run; None where the row has failed.

        Args:
            turn: from 0.
        """
        if self.error is not None:
            return None
        self._tell(f"run {turn + 1}")
        try:
            taken: float = self._process.ask("run")["seconds"]
        except JobError as error:
            self._failed(error)
            return None
        self.seconds.append(taken)
        return taken

    def result(self) -> RowResult:
        """What the row gave, and the end of its process."""
        found = None
        if self.error is None:
            self._tell("judging")
            try:
                found = self._process.ask("facts")
            except JobError as error:
                self._failed(error)
        if found is None:
            return RowResult(self.spec, error=self.error, commit=self._commit)
        self.close()
        self.peak_bytes = found["peak_bytes"]
        return RowResult(
            spec=self.spec,
            seconds=tuple(self.seconds),
            baseline=tuple(self.baseline),
            first_call_s=self._first_call_s,
            floor_bytes=self._process.floor_bytes,
            peak_bytes=self.peak_bytes,
            facts=found["facts"],
            commit=self._commit,
        )

    def close(self) -> None:
        """End the process, gently."""
        self._process.close()

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()
        self._process.close()

    def _failed(self, error: JobError) -> None:
        self.error = str(error)
        self.kill()

    def _tell(self, doing: str) -> None:
        self._say(f"{self.spec.name}: {doing}")
