"""writer: files of a bundle, each whole under a name of its contents, and the manifest last.

A file is written under a partial name, synced, hashed and renamed. The manifest's rename makes the
bundle, so whoever stops the work, at any point, leaves the old bundle or the new one. What neither
names is removed at the end of the next build.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from turbo4d.runtime.bundle.bundle_files import sha256_of
from turbo4d.runtime.bundle.manifest import MANIFEST, FileRow
from turbo4d.runtime.errors import BundleError

from .folder_lock import LOCK

PARTIAL = ".partial-"
_OURS = re.compile(r".+\.[0-9a-f]{12}\.[a-z0-9]+")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Filled = TypeVar("Filled")


def refuse_folder(folder: Path, *, force: bool) -> None:
    """Refuse to build where something else lies.

    Args:
        folder: that is to be the bundle.
        force: whether a bundle that is there may be replaced.

    Raises:
        BundleError: it is no folder, holds what is no bundle, or is one and `force` is off.
    """
    place = f"bundle {str(folder)!r}"
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise BundleError(f"{place} is a file; name a folder, which need not exist.")
    held = {path.name for path in folder.iterdir()}
    if named_files(folder) is not None:
        if not force:
            raise BundleError(f"{place} exists; give force to replace it, or name another folder.")
    elif held and LOCK not in held:
        raise BundleError(
            f"{place} is a folder that holds no bundle; name another, or an empty one."
        )


def named_files(folder: Path) -> dict[str, str] | None:
    """Hash by name of the files that a bundle's manifest names; None where it is no bundle.

    Nothing else of the manifest is believed: a damaged bundle is one still, and can be replaced.
    """
    try:
        manifest: Any = json.loads((folder / MANIFEST).read_text("utf-8"))
        if "digest" not in manifest or "schema_version" not in manifest:
            return None
        return {name: str(row["sha256"]) for name, row in manifest["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


class BundleWriter:
    """Writes one bundle; a context, which removes what it wrote where it is left by an error.

    Args:
        folder: of the bundle, locked by this process.

    Attributes:
        files: what was written, by name.
    """

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, FileRow] = {}
        self._folder = folder
        self._old = named_files(folder) or {}
        self._created: list[Path] = []
        self._count = 0

    def __enter__(self) -> BundleWriter:
        self._sweep()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for path in (*self._created, *self._folder.glob(f"{PARTIAL}*")):
                _removed(path)

    def write(
        self, stem: str, suffix: str, fill: Callable[[BinaryIO], Filled]
    ) -> tuple[str, Filled]:
        """Write a file.

        Args:
            stem: what its name begins with; what no file name holds becomes "_".
            suffix: what it ends with.
            fill: writes the contents.

        Returns:
            Its name, and what `fill` gave.

        Raises:
            BundleError: it cannot be written.
        """
        with self.partial(stem, suffix) as path, path.open("wb") as file:
            filled = fill(file)
        return self._placed(path, stem, suffix), filled

    def keep(self, path: Path, stem: str, suffix: str) -> str:
        """Give a file in the folder, or in a folder of it, the name of its contents; gives that."""
        return self._placed(path, stem, suffix)

    @contextmanager
    def scratch(self) -> Generator[Path]:
        """An empty folder on the bundle's disk, removed with all that is left in it."""
        with self._said("an engine under way"):
            path = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=self._folder))
            try:
                yield path
            finally:
                shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def partial(self, stem: str, suffix: str) -> Generator[Path]:
        """A path in the folder for something under way; an `OSError` becomes one of ours."""
        self._count += 1
        path = self._folder / f"{PARTIAL}{os.getpid()}-{self._count}{suffix}"
        with self._said(f"{stem}{suffix}"):
            yield path

    def leave_out(self, name: str) -> None:
        """Keep a file that was written out of the bundle; it is removed at the end."""
        del self.files[name]

    def put(self, name: str, data: bytes) -> None:
        """Write a file under a name that others rely on.

        Raises:
            BundleError: it cannot be written, or the old bundle has another of this name, which
                cannot be exchanged together with the manifest.
        """
        path = self._folder / name
        before = self._old.get(name)
        with self.partial(name, "") as partial:
            partial.write_bytes(data)
            sha256 = sha256_of(partial)
            if before not in (None, sha256):
                raise BundleError(
                    f"bundle {str(self._folder)!r} holds another {name!r}, which no build can "
                    "replace at once with its manifest; build into another folder."
                )
            _synced(partial)
            path.parent.mkdir(parents=True, exist_ok=True)
            if before is None:
                self._created.append(path)
            partial.replace(path)
        self.files[name] = FileRow(len(data), sha256)

    def finish(self, manifest: str) -> None:
        """Make it a bundle, then remove what the old one had and this one has not.

        Args:
            manifest: its file's text.
        """
        with self.partial(MANIFEST, "") as path:
            path.write_text(manifest, "utf-8")
            _synced(path)
            _sync_folder(self._folder)
            path.replace(self._folder / MANIFEST)
            _sync_folder(self._folder)
        self._created.clear()
        for name in {*self._old} - {*self.files}:
            if _lies_in(self._folder, self._folder / name):
                (self._folder / name).unlink()
        self._sweep()

    def _placed(self, partial: Path, stem: str, suffix: str) -> str:
        with self._said(f"{stem}{suffix}"):
            _synced(partial)
            sha256 = sha256_of(partial)
            name = f"{file_stem(stem)}.{sha256[:12]}{suffix}"
            path = self._folder / name
            if name not in self._old:
                self._created.append(path)
            self.files[name] = FileRow(partial.stat().st_size, sha256)
            partial.replace(path)
        return name

    def _sweep(self) -> None:
        """Removes what builds left that never came to their manifest."""
        held = {MANIFEST, *(named_files(self._folder) or {}), *self.files}
        for path in self._folder.iterdir():
            ours = path.name.startswith(PARTIAL) or _OURS.fullmatch(path.name)
            if ours and path.name not in held:
                _removed(path)

    @contextmanager
    def _said(self, name: str) -> Generator[None]:
        try:
            yield
        except OSError as error:
            remedy = (
                "free space, or build on another disk"
                if error.errno in _FULL
                else "see that the folder can be written"
            )
            why = error.strerror or type(error).__name__
            raise BundleError(
                f"bundle {str(self._folder)!r}: {name} cannot be written: {why}; {remedy}."
            ) from error


def file_stem(name: str) -> str:
    """A name as a bundle's files may have it."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", name)


def _lies_in(folder: Path, path: Path) -> bool:
    """Whether a file, or a link wherever it leads, lies in a folder or below it."""
    try:
        here = path.parent.resolve().is_relative_to(folder.resolve())
        return here and (path.is_symlink() or path.is_file())
    except (OSError, RuntimeError, ValueError):  # links in a circle, or a name that no file has
        return False


def _removed(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _synced(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
