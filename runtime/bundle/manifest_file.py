"""The manifest as a file: JSON with a digest of itself, read strictly."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from turbo4d.runtime.errors import BundleError

from .manifest import MANIFEST, SCHEMA_VERSION, Manifest
from .manifest_check import check_manifest
from .typed_json import decoded, parsed, plain

LARGEST_BYTES = 256 << 20
"""No manifest of ours comes near it."""


def to_json(manifest: Manifest) -> str:
    """The file's text, its digest included."""
    values = cast("dict[str, object]", plain(manifest))
    return json.dumps({**values, "digest": _digest(values)}, indent=1, allow_nan=False) + "\n"


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """Read and check what a bundle says of itself; none of its other files is looked at.

    Raises:
        BundleError: where there is no manifest, it is of a newer schema, it is not what its digest
            is of, a field is unknown, missing or malformed, or its rows contradict each other.
    """
    path = Path(folder) / MANIFEST
    try:
        return of_json(_text(path))
    except RecursionError as error:
        raise BundleError(f"{path}: it is nested too deep; build the bundle anew.") from error
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error


def of_json(text: str) -> Manifest:
    """The manifest that a file's text describes.

    Raises:
        BundleError: as `read_manifest`.
    """
    raw = parsed(text)
    if not isinstance(raw, dict):
        raise BundleError("it holds no object; this is no manifest of a bundle.")
    values = dict(cast("dict[str, object]", raw))
    _check_version(values.get("schema_version"))
    digest = values.pop("digest", None)
    if digest != _digest(values):
        raise BundleError(
            "its digest is not that of what it holds, so it was changed after it was written; "
            "copy the bundle again, or build it anew."
        )
    manifest: Manifest = decoded(Manifest, values, "manifest")
    check_manifest(manifest)
    return manifest


def _digest(values: Mapping[str, object]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_version(version: object) -> None:
    if type(version) is not int or version < 1:
        raise BundleError("it has no schema_version; this is no manifest of a bundle.")
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"its schema_version is {version}; this turbo4d reads up to {SCHEMA_VERSION}. Load it "
            "with a newer turbo4d, or build it anew with this one."
        )


def _text(path: Path) -> str:
    if not path.parent.is_dir():
        raise BundleError("there is no such folder; a bundle is one that turbo4d.build wrote.")
    if path.is_symlink() or not path.is_file():
        raise BundleError("there is no such file; the folder is no bundle, or was never finished.")
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise BundleError(f"it is larger than {LARGEST_BYTES} bytes; this is no manifest.")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"it cannot be read: {error}.") from error
