"""The C++ of `row_kernels.cpp`, compiled once for a machine and called through ctypes.

It is compiled by Inductor's compiler, for this machine's own vectors, and kept beside Inductor's
code; that takes some seconds, and nothing the next time.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from turbo4d.compiler.errors import LowerError

from .compat import inductor_compiler

SOURCE = Path(__file__).with_suffix(".cpp")
SWITCH = "TURBO4D_ROW_KERNELS"
_FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-std=c++17", "-fopenmp")
_LOCK = threading.Lock()
_HELD: list[ctypes.CDLL] = []
_Argument = Tensor | int | float | None


def row_kernels_lack() -> str | None:
    """Why the kernels are not used here; None where they are."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH} is 0"
    if sys.platform != "linux":
        return f"they are built on Linux, and this is {sys.platform!r}"
    return None


def run(name: str, arguments: Sequence[_Argument]) -> None:
    """Call a kernel: tensors as addresses, whole numbers as `long`, then torch's threads.

    Args:
        name: of the function.
        arguments: dense float32 tensors on the CPU, None for a null pointer, numbers.

    Raises:
        LowerError: the kernels cannot be compiled or loaded.
    """
    function = getattr(library(), name)
    function(*map(_passed, arguments), ctypes.c_int(torch.get_num_threads()))


def _passed(argument: _Argument) -> object:
    if argument is None:
        return ctypes.c_void_p()
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_float(argument) if isinstance(argument, float) else ctypes.c_long(argument)


def library() -> ctypes.CDLL:
    """The compiled kernels: loaded at a process's first call, compiled at a machine's first.

    Raises:
        LowerError: they cannot be compiled or loaded.
    """
    if not _HELD:
        with _LOCK:
            if not _HELD:
                _HELD.append(_load())
    return _HELD[0]


def _load() -> ctypes.CDLL:
    try:
        path, fresh = _compiled()
        try:
            return ctypes.CDLL(str(path))
        except OSError:
            if fresh:
                raise
            path.unlink(missing_ok=True)  # what a machine that lost its power left of it
            return ctypes.CDLL(str(_compiled()[0]))
    except OSError as error:
        raise LowerError(
            f"the row kernels do not load: {error}; set {SWITCH}=0 to do without them, or "
            "TORCHINDUCTOR_CACHE_DIR to a folder that can be written."
        ) from error


def _compiled() -> tuple[Path, bool]:
    """The library's file, and whether it was compiled just now."""
    compiler, folder = inductor_compiler()
    source = SOURCE.read_bytes()
    facts = "\n".join((compiler, *_FLAGS, platform.machine(), _processor()))
    key = hashlib.sha256(source + facts.encode()).hexdigest()[:24]
    path = folder / "turbo4d" / f"row_kernels_{key}.so"
    if path.exists():
        return path, False
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}")
    words = [compiler, *_FLAGS, "-shared", "-fPIC", str(SOURCE), "-o", str(fresh)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), "nothing")
        raise LowerError(
            f"the row kernels do not compile: {Path(compiler).name} says "
            f"{said.split('error: ')[-1]!r}; set {SWITCH}=0 to do without them."
        )
    fresh.replace(path)
    return path, True


def _processor() -> str:
    """What tells one machine's vectors from another's, where a folder of caches is shared."""
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    return "\n".join(line for line in facts if line.startswith(("model name", "flags", "Features")))
