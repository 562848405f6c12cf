"""kernel-cache: what TensorRT-RTX compiles when it opens an engine, kept between processes.

Its engines hold no machine code: kernels are made for the GPU at hand when an engine is opened. The
library's own cache of them lies in a file for each engine, beside the engine store, and is read
before the engine's context is made. The library checks that it is of this GPU, driver and version
and whole, and takes nothing of it otherwise; then it is written anew.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any


def kernel_cache_path(plan: bytes) -> Path:
    """Where the kernels of an engine are kept.

    Args:
        plan: the serialised engine.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "turbo4d" / "kernels" / f"{hashlib.sha256(plan).hexdigest()[:24]}.cache"


class KernelCache:
    """The kernels of one engine.

    Args:
        path: of the file, which need not be there.

    Attributes:
        taken: whether the library took what was there.
    """

    def __init__(self, path: Path) -> None:
        self.taken = False
        self._path = path
        self._cache: Any = None

    def give_to(self, config: Any) -> None:
        """Have a context made with it.

        Args:
            config: the library's runtime configuration of the engine.
        """
        self._cache = config.create_runtime_cache()
        try:
            held = self._path.read_bytes()
        except OSError:
            held = b""
        self.taken = bool(held) and self._cache.deserialize(held)
        config.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """Write what was compiled, where it is not what was taken; called after a first run."""
        if self._cache is None or self.taken:
            return
        self.taken = True
        data = bytes(self._cache.serialize())
        try:
            written(self._path, data)
        except OSError:  # a cache: the next process compiles again
            return


def written(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; its folder is made.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(partial).replace(path)
    except OSError:
        Path(partial).unlink(missing_ok=True)
        raise
