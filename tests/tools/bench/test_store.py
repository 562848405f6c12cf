"""The file of a benchmark under way."""

import dataclasses
import json

import pytest
from turbo4d.tools.bench.row import RowResult, RowSpec
from turbo4d.tools.bench.store import Store
from turbo4d.tools.failures import CallError

MACHINE = {"device": "a machine", "torch": "2.13.0"}
SPEC = RowSpec("cpu", "20-steps", "eager", settings={"steps": 20})
ROW = RowResult(SPEC, (1.0, 2.0), (), 3.0, 5, 6, {"ssim": 1.0}, None, "abc")


def test_what_was_measured_is_found_again(tmp_path):
    Store(tmp_path / "x.json", MACHINE).put(ROW)
    assert (tmp_path / "x.json.part").is_file()
    assert Store(tmp_path / "x.json", MACHINE).get(SPEC) == ROW


def test_another_row_is_measured_anew(tmp_path):
    Store(tmp_path / "x.json", MACHINE).put(ROW)
    other = RowSpec("cpu", "20-steps", "eager", settings={"steps": 50})
    assert Store(tmp_path / "x.json", MACHINE).get(other) is None


def test_what_another_machine_measured_is_neither_used_nor_lost(tmp_path):
    Store(tmp_path / "x.json", MACHINE).put(ROW)
    kept = (tmp_path / "x.json.part").read_text()
    with pytest.raises(CallError) as caught:
        Store(tmp_path / "x.json", {**MACHINE, "torch": "2.14.0"})
    assert str(caught.value) == (
        f"'{tmp_path}/x.json.part' holds rows of another machine: torch was '2.13.0' and is "
        "'2.14.0'; name another --out, or delete that file and 'x.json.shared'."
    )
    newer = kept.replace('"schema_version": 1', '"schema_version": 9')
    (tmp_path / "x.json.part").write_text(newer)
    with pytest.raises(CallError, match="rows of another schema, 9, where this turbo4d writes 1"):
        Store(tmp_path / "x.json", MACHINE)
    (tmp_path / "x.json.part").write_text(kept)
    assert Store(tmp_path / "x.json", MACHINE).get(SPEC) == ROW


def test_a_row_that_failed_is_not_done(tmp_path):
    store = Store(tmp_path / "x.json", MACHINE)
    failed = RowResult(SPEC, error="it broke.")
    store.put(failed)
    assert store.get(SPEC) is None
    assert store.failed(SPEC) == failed
    assert store.done == 0
    store.put(ROW)
    assert store.failed(SPEC) is None
    assert store.done == 1


def test_it_goes_once_the_result_is_there(tmp_path):
    store = Store(tmp_path / "x.json", MACHINE)
    store.put(ROW)
    (store.folder / "sample.safetensors").touch()
    (store.folder / "inductor" / "ab").mkdir(parents=True)
    store.remove()
    assert list(tmp_path.iterdir()) == []


WHOLE = {"schema_version": 1, "machine": MACHINE}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        "[" * 100_000,
        json.dumps({"rows": []}),
        json.dumps({**WHOLE, "rows": 5}),
        json.dumps({**WHOLE, "rows": [5]}),
        json.dumps({**WHOLE, "rows": [{"spec": {"suite": "cpu"}}]}),
        json.dumps({**WHOLE, "rows": [{**dataclasses.asdict(ROW), "seconds": ["x"]}]}),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "x.json.part").write_text(text)
    with pytest.raises(CallError, match=r"x\.json\.part' is no benchmark under way; delete it"):
        Store(tmp_path / "x.json", MACHINE)
