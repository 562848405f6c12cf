"""Each way to damage a bundle is refused before anything of it runs, with the file named."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from turbo4d.runtime.bundle import ladder
from turbo4d.runtime.bundle.manifest import MANIFEST
from turbo4d.runtime.bundle.manifest_file import read_manifest
from turbo4d.runtime.errors import BundleError

from tests.runtime.bundle.handmade import write_bundle
from turbo4d import load

pytestmark = pytest.mark.usefixtures("by_hand")
REMEDY = "copy the bundle again, or build it anew."


@pytest.fixture(autouse=True)
def nothing_is_opened(monkeypatch):
    """A damaged bundle must be refused before a vendor's library sees any of it."""

    def opener(bundle, row, weights):
        raise AssertionError(f"engine {row.name!r} of a damaged bundle was opened")

    monkeypatch.setitem(ladder.OPENERS, "onnxruntime", opener)


def refusal(folder) -> str:
    with pytest.raises(BundleError) as caught:
        load(folder)
    return str(caught.value)


def said_or_read(folder):
    """What the manifest says, or the file that is refused."""
    try:
        return read_manifest(folder)
    except BundleError as error:
        return Path(str(error).partition(": ")[0])


def stems(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)


def each_file(tmp_path):
    """Every file of a bundle but the manifest, each in a bundle of its own."""
    write_bundle(tmp_path / "whole")
    for number, name in enumerate(stems(tmp_path / "whole")):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", folder)
        yield folder, name


def test_a_truncated_file(tmp_path):
    for folder, name in each_file(tmp_path):
        whole = (folder / name).read_bytes()
        for size in {0, len(whole) // 2, len(whole) - 1}:
            (folder / name).write_bytes(whole[:size])
            said = f"{folder / name}: it has {size} bytes, in the manifest {len(whole)}; {REMEDY}"
            assert refusal(folder) == said


def test_a_longer_file(tmp_path):
    for folder, name in each_file(tmp_path):
        with (folder / name).open("ab") as file:
            file.write(b"\0")
        assert re.search(rf"{re.escape(name)}: it has \d+ bytes, in the manifest", refusal(folder))


def test_a_flipped_bit_anywhere(tmp_path):
    dice = random.Random(0)
    for folder, name in each_file(tmp_path):
        whole = (folder / name).read_bytes()
        for place in {0, len(whole) - 1, dice.randrange(len(whole))}:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << dice.randrange(8)
            (folder / name).write_bytes(damaged)
            said = f"{folder / name}: its contents are not those of the manifest's hash; {REMEDY}"
            assert refusal(folder) == said


def test_a_missing_file(tmp_path):
    for folder, name in each_file(tmp_path):
        (folder / name).unlink()
        assert refusal(folder) == f"{folder / name}: the file is missing; {REMEDY}"


def test_a_file_of_another_bundle(tmp_path):
    write_bundle(tmp_path / "other", weight=7.0, hoists=False)
    other = tmp_path / "other"
    swapped = 0
    for folder, name in each_file(tmp_path):
        stem = name.split(".", maxsplit=1)[0]
        (twin,) = [each for each in stems(other) if each.startswith(f"{stem}.")] or [None]
        if twin is None or twin == name:
            continue
        shutil.copy(other / twin, folder / name)
        assert refusal(folder).startswith(f"{folder / name}: it")
        swapped += 1
    assert swapped >= 1


def test_a_link_out_of_the_folder(tmp_path):
    for folder, name in each_file(tmp_path):
        outside = tmp_path / f"outside-{name}"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)
        assert refusal(folder) == f"{folder / name}: a link leads out of the bundle; {REMEDY}"


def test_a_link_that_leads_nowhere_or_in_a_circle(tmp_path):
    for folder, name in each_file(tmp_path):
        (folder / name).unlink()
        (folder / name).symlink_to(folder / "nowhere")
        assert refusal(folder) == f"{folder / name}: the file is missing; {REMEDY}"
        (folder / name).unlink()
        (folder / name).symlink_to(folder / name)
        assert name in refusal(folder)


def test_a_folder_or_a_pipe_in_a_files_place(tmp_path):
    for folder, name in each_file(tmp_path):
        (folder / name).unlink()
        (folder / name).mkdir()
        assert refusal(folder) == f"{folder / name}: it is no regular file; {REMEDY}"
        (folder / name).rmdir()
        os.mkfifo(folder / name)
        assert refusal(folder) == f"{folder / name}: it is no regular file; {REMEDY}"


def test_the_manifest_with_any_bit_flipped(tmp_path):
    """Whatever is flipped is seen, or does not change what the manifest says."""
    write_bundle(tmp_path)
    path = tmp_path / MANIFEST
    whole, manifest = path.read_bytes(), read_manifest(tmp_path)
    dice = random.Random(1)
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        assert said_or_read(tmp_path) in (path, manifest)


def test_the_manifest_truncated_missing_or_a_link(tmp_path):
    write_bundle(tmp_path)
    path = tmp_path / MANIFEST
    whole = path.read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        assert re.match(rf"{re.escape(str(path))}: line \d+ is no JSON: ", refusal(tmp_path))
    path.rename(tmp_path / "elsewhere")
    missing = "there is no such file; the folder is no bundle, or was never finished."
    assert refusal(tmp_path) == f"{path}: {missing}"
    path.symlink_to(tmp_path / "elsewhere")
    assert refusal(tmp_path) == f"{path}: {missing}"
    nowhere = tmp_path / "nowhere"
    assert refusal(nowhere) == (
        f"{nowhere / MANIFEST}: there is no such folder; a bundle is one that turbo4d.build wrote."
    )


def test_a_manifest_that_was_edited(tmp_path):
    write_bundle(tmp_path)
    path = tmp_path / MANIFEST
    text = path.read_text()
    path.write_text(text.replace('"model": "fake"', '"model": "nano"'))
    assert refusal(tmp_path) == (
        f"{path}: its digest is not that of what it holds, so it was changed after it was written; "
        "copy the bundle again, or build it anew."
    )


def test_a_newer_schema_is_told_before_anything_else(tmp_path):
    write_bundle(tmp_path)
    path = tmp_path / MANIFEST
    path.write_text(json.dumps({"schema_version": 2, "what is new": {}}))
    assert refusal(tmp_path) == (
        f"{path}: its schema_version is 2; this turbo4d reads up to 1. Load it with a newer "
        "turbo4d, or build it anew with this one."
    )


def test_another_bundle_that_takes_the_place_meanwhile_is_loaded(tmp_path, monkeypatch):
    """A builder renames its manifest and then removes the old bundle's files."""
    old, new = tmp_path / "old", tmp_path / "new"
    write_bundle(old)
    held = stems(old)
    write_bundle(new, weight=9.0, hoists=False)
    from turbo4d.runtime.bundle import load as door

    check = door.check_files

    def replaced(folder, manifest):
        if not (old / "done").exists():
            for name in stems(new):
                shutil.copy(new / name, old / name)
            shutil.copy(new / MANIFEST, old / MANIFEST)
            for name in {*held} - {*stems(new)}:
                (old / name).unlink()
            (old / "done").touch()
        check(folder, manifest)

    monkeypatch.setattr(door, "check_files", replaced)
    monkeypatch.setitem(ladder.OPENERS, "onnxruntime", lambda *_: lambda given: given)
    assert load(old).manifest == read_manifest(new)


_ALL_DAMAGES = """
import json, random, sys
from pathlib import Path
from turbo4d import load
from turbo4d.runtime.errors import BundleError
folder, dice, said = Path(sys.argv[1]), random.Random(2), {}
for path in sorted(folder.iterdir()):
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
    damages = {"cut": whole[: len(whole) // 2], "flip": bytes(flipped), "gone": None}
    for damage, data in damages.items():
        path.unlink() if data is None else path.write_bytes(data)
        try:
            load(folder)
        except BundleError as error:
            said[f"{path.name} {damage}"] = path.name in str(error)
        path.write_bytes(whole)
load(folder)
print(json.dumps(said))
"""


def test_a_real_bundle_never_ends_the_interpreter(real_bundle, tmp_path):
    """With ONNX Runtime behind it: every file cut, with a bit flipped, and gone."""
    folder = tmp_path / "real"
    shutil.copytree(real_bundle, folder)
    done = subprocess.run(
        [sys.executable, "-c", _ALL_DAMAGES, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert len(said) == 3 * len([*folder.iterdir()])
    assert all(said.values()), said
