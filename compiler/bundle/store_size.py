"""store-size: the engine store kept under a bound; what was not used for longest goes first.

`TURBO4D_ENGINE_STORE_MIB` is the bound, `DEFAULT_MIB` where it is not set, 0 for a store that keeps
nothing. An entry's time is that of its last use. One that another process reads while it goes is as
good as absent to it. What a killed build left half-written goes after a day.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from turbo4d.runtime.errors import OptionError

VARIABLE = "TURBO4D_ENGINE_STORE_MIB"
DEFAULT_MIB = 10_240
PARTIAL = ".partial-"
_DAY_S = 86_400.0


def bound_bytes() -> int:
    """What all engines together may take.

    Raises:
        OptionError: the variable holds no whole number.
    """
    told = os.environ.get(VARIABLE, str(DEFAULT_MIB))
    if not told.isdecimal():
        raise OptionError(
            f"{VARIABLE} is {told!r}; wanted a whole number of MiB, 0 to keep no engines."
        )
    return int(told) << 20


def stored_bytes(root: Path) -> int:
    """What a store takes; 0 where there is none."""
    return sum(size for _, size, _ in _entries(root))


def used(entry: Path) -> None:
    """Note that an entry was used just now; one that is gone meanwhile is none."""
    try:
        os.utime(entry)
    except OSError:
        return


def prune(root: Path, bound: int) -> None:
    """Remove entries, the one that was not used for longest first, until the rest fits.

    Args:
        root: of the store.
        bound: bytes that the rest may take.
    """
    held = sorted(_entries(root))
    left = sum(size for _, size, _ in held)
    for last_s, size, path in held:
        partial = path.name.startswith(PARTIAL)
        if last_s < time.time() - _DAY_S if partial else left > bound:
            shutil.rmtree(path, ignore_errors=True)
            left -= size


def _entries(root: Path) -> Iterator[tuple[float, int, Path]]:
    """Last use, bytes and folder of each; what goes while it is looked at is left out."""
    try:
        paths = [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return
    for path in paths:
        try:
            size = sum(each.stat().st_size for each in path.iterdir())
            yield path.stat().st_mtime, size, path
        except OSError:
            continue
