"""What verification says of a bundle: of a whole one, a damaged one, and one that cannot run."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from turbo4d.compiler.bundle.findings import AS_BUILT, STAND_IN, WHOLE_RUN
from turbo4d.compiler.bundle.reference import STEM
from turbo4d.compiler.bundle.tolerances import relative_error
from turbo4d.compiler.bundle.verification import verify
from turbo4d.runtime.bundle.manifest import MANIFEST, Manifest
from turbo4d.runtime.bundle.manifest_file import read_manifest, to_json
from turbo4d.runtime.errors import BundleError

from tests.compiler.bundle.built import built, damaged

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def test_a_whole_bundle_passes(bundle: Path) -> None:
    found = verify(bundle)
    names = ["prologue", *(row.key.name for row in found.manifest.variants), WHOLE_RUN]
    assert [row.name for row in found.rows] == names
    assert {row.status for row in found.rows} == {"passed"}
    assert {row.by for row in found.rows} == {AS_BUILT}
    assert found.failures(require_run=True) == ()
    for row in found.rows[:-1]:
        assert row.tolerance == relative_error(torch.float32)
        assert any(name.startswith("output") for name in row.errors)
    writes = next(row for row in found.rows[1:] if "w" in row.name.split("+")[-1])
    assert any(name.startswith("slot ") for name in writes.errors)


def test_without_a_reference_nothing_is_compared(bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "bare"
    shutil.copytree(bundle, place)
    manifest = read_manifest(place)
    files = {name: row for name, row in manifest.files.items() if not name.startswith(STEM)}
    (place / MANIFEST).write_text(to_json(dataclasses.replace(manifest, files=files)))
    found = verify(place)
    assert {row.status for row in found.rows} == {"not run"}
    assert "holds no reference" in found.rows[0].reason
    assert found.failures(require_run=False) == ()
    assert len(found.failures(require_run=True)) == len(found.rows)


def for_another_device(bundle: Path, place: Path) -> Path:
    """The bundle as if its engines were for a GPU that is not here."""
    shutil.copytree(bundle, place)
    manifest = read_manifest(place)
    engines = tuple(dataclasses.replace(row, engine=row.graph) for row in manifest.engines)
    target = dataclasses.replace(
        manifest.target, name="tensorrt-rtx", device="sm89", executed=False, settings={}
    )
    told = dataclasses.replace(manifest, target=target, engines=engines)
    (place / MANIFEST).write_text(to_json(told))
    return place


@pytest.mark.skipif(torch.cuda.is_available(), reason="wants a machine without a GPU")
def test_engines_for_another_device_are_rows_of_their_own(bundle: Path, tmp_path: Path) -> None:
    place = for_another_device(bundle, tmp_path / "elsewhere")
    found = verify(place)
    as_built = [row for row in found.rows if row.by == AS_BUILT]
    stand_in = [row for row in found.rows if row.by == STAND_IN]
    assert {row.status for row in as_built} == {"not run"}
    assert all("GPU" in row.reason for row in as_built)
    assert {row.status for row in stand_in} == {"passed"}
    assert [row.name for row in stand_in] == [*(row.name for row in as_built), WHOLE_RUN]
    assert found.failures(require_run=False) == ()
    assert [row.name for row in found.failures(require_run=True)] == [row.name for row in as_built]
    alone = verify(place, strict=True)
    assert {row.by for row in alone.rows} == {AS_BUILT}


def test_a_damaged_file_is_refused_by_name(bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "damaged"
    shutil.copytree(bundle, place)
    path = next(place.glob(f"{STEM}.*"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=path.name):
        verify(place)


def test_a_conditional_bundle_passes(tmp_path: Path) -> None:
    found = verify(built(tmp_path / "bundle", "conditional"))
    assert {row.status for row in found.rows} == {"passed"}


def test_each_row_says_why_its_own_engine_does_not_run(bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "native"
    shutil.copytree(bundle, place)
    manifest = read_manifest(place)
    engines = tuple(
        dataclasses.replace(row, engine="" if row.name == "compute" else row.graph)
        for row in manifest.engines
    )
    target = dataclasses.replace(manifest.target, name="aot-inductor", settings={})
    told = dataclasses.replace(manifest, target=target, engines=engines)
    (place / MANIFEST).write_text(to_json(told))
    reasons = {row.name: row.reason for row in verify(place, strict=True).rows}
    native = (
        "AOTInductor on cpu: its file holds native code; load it with allow_native=True where you "
        "trust it"
    )
    assert reasons.pop("compute") == "AOTInductor on cpu: no engine was built"
    assert {*reasons.values()} == {native}


def test_engines_beside_one_that_does_not_open_say_so(bundle: Path, tmp_path: Path) -> None:
    def change(place: Path, manifest: Manifest) -> str:
        row = next(row for row in manifest.engines if row.name == "compute+core.w")
        (place / row.graph).write_bytes(b"no graph")
        return row.graph

    place = damaged(bundle, tmp_path / "damaged", change)
    reasons = {row.name: row.reason for row in verify(place, strict=True).rows}
    first = reasons.pop("compute+core.w")
    assert first.startswith("ONNX Runtime as built on cpu: ONNX Runtime ")
    assert {*reasons.values()} == {
        "it runs here as it was built, and engine 'compute+core.w' of the same bundle does not"
    }


def test_a_damaged_file_is_no_engine_that_cannot_run(bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "damaged"
    shutil.copytree(bundle, place)
    next(place.glob(f"{STEM}.*")).unlink()
    with pytest.raises(BundleError, match=STEM):
        verify(place, strict=True)
