"""Inductor's code beside the report of suite `gpu`: the next call need not compile it again.

A process that is ended while it links leaves a library that no later one can load, and Inductor
takes it for whole: what is half-written goes before anything is measured.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_HEADER_BYTES = 64


def keep_code(folder: Path) -> None:
    """Have Inductor keep its code in a folder; to be called before anything imports Inductor.

    Args:
        folder: which need not be there; one that the environment names already is used instead.
    """
    os.environ.setdefault(VARIABLE, str(folder.resolve()))


def drop_half_written(folder: Path) -> list[Path]:
    """Remove the libraries in a folder, and below it, that end before they should.

    Args:
        folder: of a cache that no process is writing to.

    Returns:
        Those that went.
    """
    gone = [path for path in folder.rglob("*.so") if not _whole(path)]
    for path in gone:
        path.unlink()
    return gone


def _whole(path: Path) -> bool:
    """Whether an ELF file of 64 bits has its last part, the table of its sections; others do."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        return False
    if header[:6] != b"\x7fELF\x02\x01":
        return True
    (begins,) = struct.unpack_from("<Q", header, 40)
    entry, count = struct.unpack_from("<HH", header, 58)
    return begins + entry * count <= path.stat().st_size
