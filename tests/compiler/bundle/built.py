"""A small bundle with a recorded reference, and copies of it in which one file is another."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

from turbo4d.compiler.bundle.assembly import Assembly, Kept
from turbo4d.compiler.bundle.folder_lock import FolderLock
from turbo4d.compiler.bundle.memory import memory_need
from turbo4d.compiler.bundle.targets import target_of
from turbo4d.compiler.bundle.writer import BundleWriter
from turbo4d.runtime.bundle.bundle_files import sha256_of
from turbo4d.runtime.bundle.manifest import MANIFEST, FileRow, Manifest
from turbo4d.runtime.bundle.manifest_file import read_manifest, to_json

from tests.compiler.bundle.networks import network, parts


def built(folder: Path, form: str = "variants") -> Path:
    module, call = network()
    found = parts(form)
    folder.mkdir()
    with FolderLock(folder), BundleWriter(folder) as writer:
        kept = Kept("chain", references=True)
        target = target_of("onnxruntime")
        Assembly(module, (), call, found, target, kept, lambda text: None).build(
            writer, memory_need(found), folder
        )
    return folder


def damaged(bundle: Path, place: Path, change: Callable[[Path, Manifest], str]) -> Path:
    """A copy in which one file was changed, and the manifest says that it is right so."""
    shutil.copytree(bundle, place)
    manifest = read_manifest(place)
    name = change(place, manifest)
    path = place / name
    row = FileRow(path.stat().st_size, sha256_of(path))
    told = dataclasses.replace(manifest, files={**manifest.files, name: row})
    (place / MANIFEST).write_text(to_json(told))
    return place
