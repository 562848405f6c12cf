"""A bundle's files: each regular, within the folder, of the manifest's size and hash."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from turbo4d.runtime.errors import BundleError
from turbo4d.runtime.progress import Progress

from .manifest import FileRow, Manifest

_CHUNK_BYTES = 1 << 20
_REMEDY = "copy the bundle again, or build it anew."


@dataclass(frozen=True)
class Bundle:
    """A folder whose files are what its manifest says.

    Args:
        folder: it.
        manifest: what it says of itself.
        device: type of the device that engines run on: "cpu" or "cuda".
        allow_native: whether files that hold native code may be loaded.
    """

    folder: Path
    manifest: Manifest
    device: str = "cpu"
    allow_native: bool = False

    def path(self, name: str) -> Path:
        """Where a file of the manifest lies."""
        if name not in self.manifest.files:
            raise BundleError(f"{self.folder}: {name!r} is none of its files.")
        return self.folder / name


def check_files(folder: str | os.PathLike[str], manifest: Manifest) -> None:
    """Hold every file of a bundle against its manifest.

    Args:
        folder: of the bundle.
        manifest: as `read_manifest` gives it.

    Raises:
        BundleError: naming the first file that is missing, no regular file, led out of the folder
            by a link, or of another size or hash.
    """
    root = Path(folder)
    files: Mapping[str, FileRow] = manifest.files
    with Progress() as progress:
        for name, row in sorted(files.items()):
            progress.say(f"checking {name}")
            try:
                _check(root, name, row)
            except OSError as error:
                raise BundleError(
                    f"{root / name}: it cannot be read: {error.strerror}; {_REMEDY}"
                ) from error


def _check(root: Path, name: str, row: FileRow) -> None:
    path = root / name
    # Unlike Path.resolve, it takes a link that leads to itself.
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise BundleError(f"{path}: a link leads out of the bundle; {_REMEDY}")
    if not path.exists():
        raise BundleError(f"{path}: the file is missing; {_REMEDY}")
    # Of a pipe or a device, opening alone may hang.
    if not stat.S_ISREG(path.stat().st_mode):
        raise BundleError(f"{path}: it is no regular file; {_REMEDY}")
    size = path.stat().st_size
    if size != row.size_bytes:
        raise BundleError(
            f"{path}: it has {size} bytes, in the manifest {row.size_bytes}; {_REMEDY}"
        )
    if sha256_of(path) != row.sha256:
        raise BundleError(f"{path}: its contents are not those of the manifest's hash; {_REMEDY}")


def sha256_of(path: Path) -> str:
    """The hash of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
