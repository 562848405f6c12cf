"""Whether memory that was freed on the host stays with the process, or goes back to the system.

A step makes large values and frees them. glibc gives such memory back at once and takes it anew at
the next step, and the system then clears it page by page. Kept, it stays with the process for good;
tools/results/speed-log.md has what that gains.
"""

from __future__ import annotations

import ctypes
import sys

from .log import say

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_LARGEST_KEPT = 32 << 20  # glibc takes what is larger anew whatever it is told
_NEVER = (1 << 31) - 1


def keep_freed_memory() -> str | None:
    """Keep what is freed from now on, in the whole process; says why that cannot be.

    It is what the variables MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ do from a process's
    start. It cannot be undone, and values beyond 32 MiB go back all the same.
    """
    reason = _asked()
    if reason is not None:
        say(1, f"keep_memory is without effect: {reason}.")
    return reason


def _asked() -> str | None:
    if sys.platform != "linux":
        return f"it is a setting of glibc, and this is {sys.platform!r}"
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return "this C library has no mallopt"
    if not mallopt(_MMAP, _LARGEST_KEPT) or not mallopt(_TRIM, _NEVER):
        return "the C library refused"
    return None
