"""Files and folders that appear whole or not at all: written aside, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from turbo4d.tools.failures import CallError


@contextmanager
def output_folder(out: Path, *, force: bool, owned: Callable[[str], bool]) -> Iterator[Path]:
    """A temporary folder that becomes `out` when the block ends well, and vanishes when not.

    Args:
        out: where the folder shall be; missing parents are made.
        force: replace an existing folder, provided it holds nothing but files of ours.
        owned: whether an entry's name is one of ours.

    Yields:
        The folder to write into.

    Raises:
        CallError: `out` exists and may not be replaced, or cannot be written.
    """
    _refuse_folder(out, force, owned)
    with _temporary(out) as partial:
        _make(partial, out)
        yield partial
        if out.exists():
            _swap(partial, out)
        else:
            partial.rename(out)


@contextmanager
def output_file(out: Path, *, force: bool) -> Iterator[Path]:
    """A temporary file name that becomes `out` when the block ends well.

    Raises:
        CallError: `out` exists and `force` is not set, or cannot be written.
    """
    if out.is_dir():
        raise CallError(f"--out {str(out)!r} is a folder; name a file.")
    if out.exists() and not force:
        raise CallError(f"--out {str(out)!r} exists; name another file, or add --force.")
    with _temporary(out) as partial:
        try:
            partial.touch(exist_ok=False)
        except OSError as error:
            raise _cannot_write(out, error) from error
        yield partial
        partial.replace(out)


def _refuse_folder(out: Path, force: bool, owned: Callable[[str], bool]) -> None:
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir() or out.is_symlink():
        raise CallError(f"--out {str(out)!r} is not a folder; name a folder that does not exist.")
    entries = sorted(entry.name for entry in out.iterdir())
    if entries and not force:
        raise CallError(f"--out {str(out)!r} exists; name another folder, or add --force.")
    foreign = [name for name in entries if not owned(name)]
    if foreign:
        raise CallError(
            f"--out {str(out)!r} holds {foreign[0]!r}, which turbo4d did not write, so --force "
            "will not replace it; name another folder."
        )


@contextmanager
def _temporary(out: Path) -> Iterator[Path]:
    """A free name beside `out`; what is left under it, and parents made for it, are removed."""
    for parent in out.absolute().parents:
        if parent.exists() and not parent.is_dir():
            raise CallError(
                f"--out {str(out)!r} cannot be written ({parent.name!r} is not a folder); name a "
                "place you can write."
            )
    missing = [parent for parent in out.absolute().parents if not parent.exists()]
    partial = out.absolute().parent / f".{out.name}.{os.getpid()}.partial"
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(out, error) from error
    try:
        yield partial
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
        for parent in missing:  # nearest first; one that holds the result stays
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def _make(partial: Path, out: Path) -> None:
    try:
        partial.mkdir()
    except OSError as error:
        raise _cannot_write(out, error) from error


def _swap(partial: Path, out: Path) -> None:
    """Puts `partial` in the place of the folder `out`, and `out` back where that fails."""
    old = partial.with_suffix(".old")
    out.rename(old)
    try:
        partial.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old)


def _cannot_write(out: Path, error: OSError) -> CallError:
    reason = (error.strerror or str(error)).lower()
    return CallError(
        f"--out {str(out)!r} cannot be written ({reason}); name a place you can write."
    )
