"""Puts engines that a device built into its bundle: `python -m turbo4d.runtime.bundle.add_engines`.

Each becomes a file named by its content; then one new manifest, with its hash, takes the place of
the old one. Nothing is run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from turbo4d.runtime.bundle.manifest import MANIFEST, FileRow, Manifest
from turbo4d.runtime.bundle.manifest_file import read_manifest, to_json
from turbo4d.runtime.errors import BundleError, Turbo4DError

TARGET = "tensorrt"
_LETTERS = re.compile(r"[^A-Za-z0-9_.+-]")


def add_engines(folder: Path, engines: Mapping[str, Path], device: str) -> Manifest:
    """Give each engine of a bundle the file that was built of it.

    Args:
        folder: the bundle.
        engines: file of each, by the engine's name; of all that the manifest has.
        device: that built them, such as "sm87".

    Returns:
        The manifest as it now is.

    Raises:
        BundleError: the folder is no bundle, an engine is missing or unknown, or a file is empty.
    """
    manifest = read_manifest(folder)
    names = {row.name for row in manifest.engines}
    if wrong := sorted(names ^ set(engines)):
        raise BundleError(
            f"{folder}: files are given for the engines {sorted(engines)}, and the bundle has "
            f"{sorted(names)}; {wrong[0]!r} is in one of the two alone. Give each its file."
        )
    files = dict(manifest.files)
    placed: dict[str, str] = {}
    for name, path in engines.items():
        data = _read(path)
        digest = hashlib.sha256(data).hexdigest()
        placed[name] = f"{_LETTERS.sub('_', name)}.{digest[:12]}.engine"
        files[placed[name]] = FileRow(len(data), digest)
        _write(folder / placed[name], data)
    target = manifest.target
    changed = replace(
        manifest,
        target=replace(
            target,
            name=TARGET,
            device=device,
            executed=False,
            settings={**target.settings, "kit": target.settings.get("kit", target.name)},
        ),
        engines=tuple(replace(row, engine=placed[row.name]) for row in manifest.engines),
        files=files,
        made_with={**manifest.made_with, **_version()},
    )
    _write(folder / MANIFEST, to_json(changed).encode())
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a command; gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m turbo4d.runtime.bundle.add_engines", description=__doc__
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--device", required=True, help="compute capability, such as sm87")
    parser.add_argument("engines", nargs="+", metavar="NAME=FILE")
    given = parser.parse_args(arguments)
    pairs = [each.rpartition("=") for each in given.engines]
    try:
        manifest = add_engines(given.bundle, {n: Path(path) for n, _, path in pairs}, given.device)
    except (Turbo4DError, OSError) as error:
        print(f"add_engines: {error}", file=sys.stderr)
        return 1
    print(f"{len(manifest.engines)} engines for {given.device} are in {given.bundle}.")
    return 0


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"engine file {path} cannot be read ({error}); build it.") from error
    if not data:
        raise BundleError(f"engine file {path} is empty; build it again.")
    return data


def _write(path: Path, data: bytes) -> None:
    handle, partial = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(partial).chmod(0o644)
        Path(partial).replace(path)
    except OSError:
        Path(partial).unlink(missing_ok=True)
        raise


def _version() -> dict[str, str]:
    try:
        return {"tensorrt": metadata.version("tensorrt")}
    except metadata.PackageNotFoundError:
        return {}


if __name__ == "__main__":
    sys.exit(main())
