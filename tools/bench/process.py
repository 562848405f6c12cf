"""The other side of a row's process: starts it, asks it, and says in a sentence how it died."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from turbo4d.tools.bench.row import RowSpec
from turbo4d.tools.failures import JobError

WORKER = (sys.executable, "-m", "turbo4d.tools.bench.worker")
_LONGEST = 400  # letters of a sentence
_LAST_WORD = re.compile(r"^[A-Za-z_][\w.]*: \S")
_LEAVE_S = 10.0


class RowProcess:
    """One row's process, asleep while it is not asked.

    Args:
        spec: the row.
        folder: that rows share.
        limit_s: for which an answer is waited at most.
        command: that starts the process.

    Attributes:
        spec: as given.
        floor_bytes: resident before the first run, at most.
    """

    def __init__(
        self, spec: RowSpec, folder: Path, limit_s: float, command: Sequence[str] = WORKER
    ) -> None:
        self.spec, self._limit_s = spec, limit_s
        self._complaints = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env={**os.environ, **spec.environment},
            start_new_session=True,  # Ctrl-C is the command's to handle
        )
        self._read = b""
        self._tell({"spec": spec.to_json(), "folder": str(folder)})
        self.floor_bytes: int | None = None

    def wait_ready(self) -> None:
        """Wait for the row's job; JobError where there is none."""
        self.floor_bytes = self._answer("prepare")["floor_bytes"]

    def ask(self, word: str) -> dict[str, Any]:
        """The answer to "first", "run" or "facts".

        Raises:
            JobError: with how the process failed.
        """
        self._tell(word)
        return self._answer(word)

    def close(self) -> None:
        """End the process, gently where it listens."""
        for channel in (self._process.stdin, self._process.stdout):
            if channel is not None and not channel.closed:
                try:
                    channel.close()
                except BrokenPipeError:
                    continue  # it is gone already
        try:
            self._process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._complaints.close()

    def kill(self) -> None:
        """End the process now, with those that it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _tell(self, what: object) -> None:
        line = what if isinstance(what, str) else json.dumps(what)
        try:
            if self._process.stdin is not None:
                self._process.stdin.write(f"{line}\n".encode())
                self._process.stdin.flush()
        except BrokenPipeError:
            return  # the missing answer says why

    def _answer(self, word: str) -> dict[str, Any]:
        line = self._line(word)
        if not line:
            self._process.wait()
            raise JobError(self._end(word))
        answer = json.loads(line)
        if "error" in answer:
            raise JobError(_short(answer["error"]))
        return answer

    def _line(self, word: str) -> bytes:
        """The next line; empty where the process is gone."""
        channel, end = self._process.stdout, time.monotonic() + self._limit_s
        if channel is None:
            return b""
        with selectors.DefaultSelector() as selector:
            selector.register(channel, selectors.EVENT_READ)
            while b"\n" not in self._read:
                if not selector.select(max(0.0, end - time.monotonic())):
                    self.kill()
                    raise JobError(
                        f"{word!r} took more than {self._limit_s:.0f} s and was ended; raise "
                        "--limit to let it go on."
                    )
                taken = os.read(channel.fileno(), 1 << 16)
                if not taken:
                    return b""
                self._read += taken
        line, _, self._read = self._read.partition(b"\n")
        return line

    def _end(self, word: str) -> str:
        status = self._process.returncode
        if status < 0:
            name = signal.Signals(-status).name
            why = (
                ", as the system does when memory runs out; run it alone with --rows, or with more "
                "memory"
                if name == "SIGKILL"
                else ""
            )
            return f"its process was ended by {name} at {word!r}{why}."
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").splitlines()
        said = [line for line in lines if _LAST_WORD.match(line)] or lines
        cause = f": {said[-1].strip()}" if said else ""
        return _short(f"its process ended with status {status} at {word!r}{cause}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    line = line if len(line) <= _LONGEST else line[: _LONGEST - 3].rstrip() + "..."
    return line if line.endswith((".", "!", "?")) else f"{line}."
