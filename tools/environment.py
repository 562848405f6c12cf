"""The machine, the versions and the commit that a figure was measured with."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import torch
from turbo4d.runtime.device_name import device_name as device_name

_ROOT = Path(__file__).resolve().parent.parent


def commit() -> str | None:
    """Hash of the checkout this package runs from, `-dirty` if it was edited; None outside one."""
    if not (_ROOT / ".git").exists():
        return None
    head = _git("rev-parse", "HEAD")
    if head is None:
        return None
    return head + ("-dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *words], cwd=_ROOT, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def weights_sha256(module: torch.nn.Module) -> str:
    """SHA-256 over the names, shapes and bytes of a module's parameters and buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
