"""A build that is killed, or that finds no room, leaves the old bundle or the new one."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import resource
import signal
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from turbo4d.compiler.bundle.folder_lock import LOCK, FolderLock
from turbo4d.compiler.bundle.parts import Parts
from turbo4d.compiler.bundle.writer import BundleWriter, file_stem, refuse_folder
from turbo4d.compiler.errors import LowerError
from turbo4d.runtime.bundle.bundle_files import check_files
from turbo4d.runtime.bundle.manifest import MANIFEST
from turbo4d.runtime.bundle.manifest_file import read_manifest
from turbo4d.runtime.errors import BundleError

from tests.compiler.bundle.networks import CopyTarget, assembled, parts

pytest.importorskip("onnx")


def forked(work: Callable[[], object]) -> int:
    """Another process that does some work; its exit status says whether it came to its end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)
    raise AssertionError


def status_of(child: int) -> int:
    return os.waitpid(child, 0)[1]


def two_graphs() -> Parts:
    """The least that is a bundle: the prologue, and the variant that computes nothing."""
    found = parts()
    names = ("prologue", "core.reuse")
    return dataclasses.replace(
        found,
        graphs=tuple(part for part in found.graphs if part.name in names),
        variants=tuple(row for row in found.variants if row.engine in names),
    )


def name_of(folder: Path) -> str:
    """The model's name in a bundle that is whole."""
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    return manifest.model


def test_killed_at_any_moment_it_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    found, folder = two_graphs(), tmp_path / "bundle"
    assembled(folder, CopyTarget(), "0", found)
    start_s = time.perf_counter()
    assembled(folder, CopyTarget(b"1"), "1", found)
    whole_s = time.perf_counter() - start_s
    generator, old = random.Random(0), "1"
    moments = [0.0, *(generator.uniform(0, whole_s) for _ in range(18)), None]
    for at, moment in enumerate(moments):
        new = f"{at}!"
        child = forked(partial(assembled, folder, CopyTarget(new.encode()), new, found))
        if moment is not None:
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
        killed = os.WIFSIGNALED(status_of(child))
        now = name_of(folder)
        assert now in ((old, new) if killed else (new,))
        assert killed or at
        old = now
    assert old == "19!"
    assembled(folder, CopyTarget(), "end", found)
    manifest = read_manifest(folder)
    assert {path.name for path in folder.iterdir()} == {MANIFEST, *manifest.files}


def test_a_first_build_that_was_killed_is_taken_up(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / LOCK).write_text('{"pid": 1}')
    (folder / ".partial-1-1.onnx").write_text("half")
    (folder / "compute.0123456789ab.onnx").write_text("whole")
    refuse_folder(folder, force=False)
    assembled(folder, CopyTarget(), "taken up")
    assert name_of(folder) == "taken up"
    assert not (folder / "compute.0123456789ab.onnx").exists()


def test_engines_that_were_built_are_not_built_again(tmp_path: Path) -> None:
    target = CopyTarget(fails=frozenset({"compute"}))
    with pytest.raises(LowerError, match="is not taken"):
        assembled(tmp_path / "bundle", target)
    assert target.built == ["prologue", "compute+core.w", "core.reuse"]
    assert [*(tmp_path / "bundle").iterdir()] == []
    again = CopyTarget()
    report = assembled(tmp_path / "bundle", again)
    assert again.built == ["compute"]
    assert [each.stored for each in report.engines] == [True, True, True, False]


def test_a_full_disk_is_one_sentence_and_the_old_bundle(tmp_path: Path) -> None:
    folder, said = tmp_path / "bundle", tmp_path / "said"
    assembled(folder, CopyTarget(), "old")
    before = sorted(path.name for path in folder.iterdir())

    def work() -> None:
        with said.open("w") as file:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            try:
                assembled(folder, CopyTarget(), "new")
            except BundleError as error:
                file.write(str(error))

    assert status_of(forked(work)) == 0
    assert said.read_text() == (
        f"bundle {str(folder)!r}: weights.bin cannot be written: File too large; free space, or "
        "build on another disk."
    )
    assert name_of(folder) == "old"
    assert sorted(path.name for path in folder.iterdir()) == before


def test_one_builder_at_a_time(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        with pytest.raises(BundleError) as caught, FolderLock(tmp_path):
            pass
        said = str(caught.value)
        assert said.startswith(
            f"bundle {str(tmp_path)!r} is being built by process {os.getpid()} on "
        )
        assert said.endswith("; wait for it, or build into another folder.")
    assert [*tmp_path.iterdir()] == []
    with FolderLock(tmp_path):
        pass


def test_of_two_builders_one_is_refused_or_waits_its_turn(tmp_path: Path) -> None:
    found, folder = two_graphs(), tmp_path / "bundle"
    folder.mkdir()

    def work(name: str) -> None:
        try:
            assembled(folder, CopyTarget(name.encode()), name, found)
        except BundleError as error:
            os._exit(3 if "is being built by process" in str(error) else 4)

    children = [forked(lambda name=name: work(name)) for name in "ab"]
    codes = sorted(os.waitstatus_to_exitcode(status_of(child)) for child in children)
    assert codes in ([0, 0], [0, 3])
    assert name_of(folder) in ("a", "b")


def test_a_name_that_others_rely_on_is_not_exchanged(tmp_path: Path) -> None:
    with BundleWriter(tmp_path) as writer:
        writer.put("1/model.py", b"one")
        writer.finish(
            '{"schema_version": 1, "digest": "", "files": {"1/model.py": {"sha256": "x"}}}'
        )
    with pytest.raises(BundleError) as caught, BundleWriter(tmp_path) as writer:
        writer.put("1/model.py", b"two")
    assert str(caught.value) == (
        f"bundle {str(tmp_path)!r} holds another '1/model.py', which no build can replace at once "
        "with its manifest; build into another folder."
    )
    assert (tmp_path / "1/model.py").read_bytes() == b"one"


def test_what_an_old_bundle_left_in_circles_goes_or_stays_unharmed(tmp_path: Path) -> None:
    folder, outside = tmp_path / "bundle", tmp_path / "outside"
    folder.mkdir()
    outside.write_bytes(b"of somebody else")
    (folder / "circle.0123456789ab.onnx").symlink_to("circle.0123456789ab.onnx")
    (folder / "round").symlink_to("round")
    (folder / "loop").symlink_to(folder / "loop" / "further")
    (folder / "link").symlink_to(outside)
    names = ["circle.0123456789ab.onnx", "round", "round/within", "loop/within", "link",
             "../outside", str(outside), "x" * 5000, "a\0b", "none"]  # fmt: skip
    files = {name: {"sha256": "x"} for name in names}
    old = {"schema_version": 1, "digest": "", "files": files}
    (folder / MANIFEST).write_text(json.dumps(old))
    with BundleWriter(folder) as writer:
        name, _ = writer.write("new", ".bin", lambda file: file.write(b"new"))
        writer.finish(json.dumps({**old, "files": {name: {"sha256": "y"}}}))
    assert {path.name for path in folder.iterdir()} == {MANIFEST, name, "loop"}
    assert outside.read_bytes() == b"of somebody else"


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("compute+core.w", "compute+core.w"),
        ("2chain.prune(0.5)", "2chain.prune_0.5_"),
        ("a/b", "a_b"),
    ],
)
def test_names_of_files(name: str, stem: str) -> None:
    assert file_stem(name) == stem
