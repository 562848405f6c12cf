"""The engine store: an engine is taken for the same graph, target and versions, or not at all."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from turbo4d.compiler.bundle.graphs import write_part
from turbo4d.compiler.bundle.part import Part
from turbo4d.compiler.bundle.store import EngineStore, key_of, store_folder
from turbo4d.compiler.bundle.store_size import (
    DEFAULT_MIB,
    VARIABLE,
    bound_bytes,
    prune,
    stored_bytes,
    used,
)
from turbo4d.compiler.bundle.targets import BuildRequest, Built
from turbo4d.compiler.bundle.weights_file import write_weights
from turbo4d.runtime.bundle.manifest import TensorRow
from turbo4d.runtime.errors import OptionError

from tests.compiler.bundle.networks import CopyTarget, parts

pytest.importorskip("onnx")


def request(folder: Path, name: str = "core.reuse", scale: float = 1.0) -> BuildRequest:
    """What a target is asked for, of a network whose weights are all scaled."""
    found = parts()
    part: Part = next(each for each in found.graphs if each.name == name)
    values = {name: value * scale for name, value in found.weights.items()}
    folder.mkdir(exist_ok=True)
    weights = folder / f"weights-{scale}.bin"
    with weights.open("wb") as file:
        rows = {row.name: row for row in write_weights(values, file, lambda text: None)}
    graph = folder / f"{name}-{scale}.onnx"
    write_part(part, graph, weights, rows, values)
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return BuildRequest(
        name, graph, weights, {at: rows[of] for at, of in part.held.items()}, part.takes,
        part.gives, part.module, {at: values[of] for at, of in part.held.items()}, (), (), scratch,
        part.flops, lambda text: None,
    )  # fmt: skip


def test_a_key_is_of_the_graph_and_not_of_the_weights(tmp_path: Path) -> None:
    target: Any = CopyTarget()
    keys = [
        key_of(request(tmp_path, "compute").graph, target, {}),
        key_of(request(tmp_path, "compute", 2.0).graph, target, {}),
        key_of(request(tmp_path, "core.reuse").graph, target, {}),
        key_of(request(tmp_path, "compute").graph, CopyTarget(b"other settings"), {}),
        key_of(request(tmp_path, "compute").graph, target, {"torch": "3.0"}),
    ]
    assert keys[0] == keys[1]
    assert len({*keys}) == 4


def test_what_is_put_is_taken(tmp_path: Path) -> None:
    asked, store = request(tmp_path), EngineStore(tmp_path / "store")
    assert store.take("key", asked, ".engine") is None
    built = CopyTarget(b"mark").build(asked)
    store.put("key", asked, dataclasses.replace(built, layers=7, facts={"nodes": 3}))
    found = store.take("key", asked, ".engine")
    assert found is not None
    assert found.engine is not None
    assert found.engine.parent == asked.scratch
    assert found.engine.read_bytes() == b"mark" + asked.graph.read_bytes()
    assert (found.takes, found.gives, found.layers) == (asked.takes, asked.gives, 7)
    assert found.facts == {"nodes": 3}
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["key"]


@pytest.mark.parametrize("name", ["engine", "entry.json"])
def test_what_is_damaged_is_as_good_as_absent(tmp_path: Path, name: str) -> None:
    asked, store = request(tmp_path), EngineStore(tmp_path / "store")
    store.put("key", asked, CopyTarget().build(asked))
    path = tmp_path / "store" / "key" / name
    path.write_bytes(path.read_bytes()[:-1])
    assert store.take("key", asked, ".engine") is None
    store.put("key", asked, CopyTarget().build(asked))
    assert store.take("key", asked, ".engine") is not None


def test_an_engine_that_holds_weights_is_for_those_alone(tmp_path: Path) -> None:
    asked, other = request(tmp_path, "compute"), request(tmp_path, "compute", 2.0)
    store, built = EngineStore(tmp_path / "store"), CopyTarget().build(asked)
    store.put("within", asked, built)
    assert store.take("within", asked, ".engine") is not None
    assert store.take("within", other, ".engine") is None
    outside = tuple(
        TensorRow(name, "weight", row.name, row.shape, row.dtype)
        for name, row in asked.held.items()
    )
    store.put("outside", asked, dataclasses.replace(built, takes=(*built.takes, *outside)))
    assert store.take("outside", other, ".engine") is not None


def test_what_has_no_file_is_not_kept(tmp_path: Path) -> None:
    asked = request(tmp_path)
    EngineStore(tmp_path / "store").put("key", asked, Built(None, (), (), executed=True))
    assert not (tmp_path / "store").exists()


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURBO4D_ENGINE_STORE", "/a/store")
    assert store_folder() == Path("/a/store")
    monkeypatch.delenv("TURBO4D_ENGINE_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/a/cache")
    assert store_folder() == Path("/a/cache/turbo4d/engines")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert store_folder() == Path.home() / ".cache/turbo4d/engines"


def test_weights_that_are_one_lie_once(tmp_path: Path) -> None:
    tied, odd = torch.randn(3, 5), torch.arange(3, dtype=torch.int8)
    path = tmp_path / "weights.bin"
    with path.open("wb") as file:
        rows = write_weights({"a": odd, "b": tied, "c": tied, "d": tied.T}, file, lambda text: None)
    places = {row.name: (row.offset, row.size_bytes) for row in rows}
    assert places["b"] == places["c"] == (64, 60)
    assert places["d"] == (128, 60)
    data = path.read_bytes()
    assert data[128:188] == tied.T.contiguous().numpy().tobytes()


def entry(root: Path, name: str, size: int, age_s: float) -> None:
    (root / name).mkdir(parents=True)
    (root / name / "engine").write_bytes(b"x" * size)
    os.utime(root / name, (time.time() - age_s, time.time() - age_s))


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    for name, age_s in (("new", 1.0), ("old", 30.0), ("older", 60.0)):
        entry(tmp_path, name, 100, age_s)
    entry(tmp_path, ".partial-being-made", 100, 2.0)
    entry(tmp_path, ".partial-abandoned", 100, 2 * 86_400.0)
    used(tmp_path / "older")
    used(tmp_path / "gone")
    assert stored_bytes(tmp_path) == 500
    prune(tmp_path, 300)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "older", ".partial-being-made"}
    prune(tmp_path, 0)
    assert {path.name for path in tmp_path.iterdir()} == {".partial-being-made"}
    prune(tmp_path / "none", 0)
    assert stored_bytes(tmp_path / "none") == 0


def test_the_store_stays_under_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    asked, store = request(tmp_path), EngineStore(tmp_path / "store")
    half = CopyTarget(b"x" * 400_000).build(asked)
    for at, key in enumerate("abc"):
        store.put(key, asked, half)
        os.utime(tmp_path / "store" / key, (at, at))
        if key == "b":
            assert store.take("a", asked, ".engine") is not None  # now "b" is the older one
    assert {path.name for path in (tmp_path / "store").iterdir()} == {"a", "c"}
    monkeypatch.setenv(VARIABLE, "0")
    EngineStore(tmp_path / "store").put("d", asked, half)
    assert not any((tmp_path / "store").iterdir())


def test_a_bound_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert bound_bytes() == DEFAULT_MIB << 20
    monkeypatch.setenv(VARIABLE, "8GiB")
    with pytest.raises(OptionError) as caught:
        bound_bytes()
    assert str(caught.value) == (
        "TURBO4D_ENGINE_STORE_MIB is '8GiB'; wanted a whole number of MiB, 0 to keep no engines."
    )
