"""folder-lock: one builder at a time in a bundle's folder.

The lock is the system's, on a file in the folder, so it ends with the process that holds it however
that ends. The file says who that is; left behind, it also marks the folder of a build that never
came to its manifest.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType

from turbo4d.runtime.errors import BundleError

LOCK = ".turbo4d-build"


class FolderLock:
    """Held inside a `with`; refused where another process holds it.

    Args:
        folder: of the bundle, which is there.

    Raises:
        BundleError: on entering, naming the process that builds there.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._file: int | None = None

    def __enter__(self) -> FolderLock:
        while self._file is None:
            file = self._opened()
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                raise BundleError(self._taken()) from None
            if self._stands(file):
                self._file = file
            else:  # whoever held it removed the file before we had it
                os.close(file)
        said = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps(said).encode(), 0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None

    def _opened(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise BundleError(
                f"bundle {str(self._path.parent)!r} cannot be written: {error.strerror}; see that "
                "the folder can be written, or name another."
            ) from error

    def _stands(self, file: int) -> bool:
        """Whether the file that was locked is the one that others will find."""
        try:
            return os.path.samestat(os.fstat(file), os.lstat(self._path))
        except FileNotFoundError:
            return False

    def _taken(self) -> str:
        place = f"bundle {str(self._path.parent)!r}"
        try:
            held = json.loads(self._path.read_text("utf-8"))
            who = f"process {held['pid']} on {held['host']}, since {held['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            who = "another process, which has not said who it is yet"
        return f"{place} is being built by {who}; wait for it, or build into another folder."


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z")
