"""Puts engines that a device built into its bundle: `python -m turbo4d.runtime.bundle.add_engines`.

Each becomes a file named by its content; then one new manifest, with its hash, takes the place of
the old one. Nothing is run. `--list` says which graphs a kit has engines built of, and as which
files: the kit's script asks it, so that the script is the same for every bundle.
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
from pathlib import Path, PurePosixPath

from turbo4d.runtime.bundle.manifest import MANIFEST, FileRow, Manifest
from turbo4d.runtime.bundle.manifest_file import read_manifest, to_json
from turbo4d.runtime.errors import BundleError, Turbo4DError

TARGET = "tensorrt"
BUILT = "built"
"""Folder of the bundle in which a kit's script builds."""
_LETTERS = re.compile(r"[^A-Za-z0-9_.+-]")
_DEVICE = re.compile(r"sm[0-9]{2,3}")


def add_engines(folder: Path, engines: Mapping[str, Path], device: str) -> Manifest:
    """Give each engine of a bundle the file that was built of it.

    Args:
        folder: the bundle.
        engines: file of each, by the engine's name; of all that the manifest has.
        device: that built them, such as "sm87".

    Returns:
        The manifest as it now is.

    Raises:
        BundleError: the device is none, the folder is no bundle, an engine is missing or unknown,
            or a file is empty.
    """
    if not _DEVICE.fullmatch(device):
        raise BundleError(f"device {device!r} is no compute capability; wanted one such as 'sm87'.")
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


def kit_files(manifest: Manifest) -> dict[str, tuple[str, str]]:
    """For each engine of a kit, the graph that it is built of, and the file it is built as.

    Args:
        manifest: of the kit, before or after its engines were built.
    """
    found: dict[str, tuple[str, str]] = {}
    for row in manifest.engines:
        stem = re.escape(_LETTERS.sub("_", row.name))
        graphs = [
            name
            for name in manifest.files
            if re.fullmatch(rf"{stem}\.[0-9a-f]{{12}}\.onnx", name) and name != row.graph
        ]
        graph = (graphs or [row.graph])[0]  # without weights both graphs are one file
        found[row.name] = graph, f"{BUILT}/{PurePosixPath(graph).stem}.engine"
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a command; gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m turbo4d.runtime.bundle.add_engines", description=__doc__
    )
    parser.add_argument("bundle", type=Path)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--device", help="compute capability that built the engines, such as sm87")
    asked.add_argument(
        "--list", action="store_true", help="print graph and file of each engine, to be built"
    )
    given = parser.parse_args(arguments)
    try:
        files = kit_files(read_manifest(given.bundle))
        if given.list:
            print("\n".join("\t".join(pair) for pair in files.values()))
            return 0
        built = {name: given.bundle / made for name, (_, made) in files.items()}
        manifest = add_engines(given.bundle, built, given.device)
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
