"""The file of a measurement: what it refuses, and that it comes back as it was."""

import json

import pytest
from turbo4d.tools.failures import CallError
from turbo4d.tools.rivals import state

WHAT = {"model": "nano", "steps": 20}


def test_a_measurement_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "out.json"
    found = state.read(path, WHAT)
    found["psnr_db"] = {"0": {"CK": 30.5}}
    found["pareto"] = [{"system": "s"}, {"system": "t"}]
    state.write(path, found)
    assert state.read(path, WHAT) == found
    assert '  {"system": "s"},\n  {"system": "t"}\n' in path.read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["out.json"]


def test_two_beginnings_share_nothing(tmp_path):
    one, other = (state.read(tmp_path / name, WHAT) for name in ("a", "b"))
    one["screened"]["0"] = {}
    assert other["screened"] == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"psnr_db": {', "is no measurement of rivals, for it is not JSON; name another file"),
        ("[]", "is no measurement of rivals; name another file or delete it."),
        ('{"schema_version": 1}', "is no measurement of rivals; name another file"),
    ],
)
def test_a_file_of_something_else_is_refused(text, said, tmp_path):
    path = tmp_path / "out.json"
    path.write_text(text)
    with pytest.raises(CallError, match=said):
        state.read(path, WHAT)


@pytest.mark.parametrize(("field", "value"), [("steps", 10), ("schema_version", 2)])
def test_a_measurement_of_something_else_is_refused(field, value, tmp_path):
    path = tmp_path / "out.json"
    state.write(path, state.read(path, WHAT) | {field: value})
    with pytest.raises(CallError, match=f"was measured with {field} {value}, this call has"):
        state.read(path, WHAT)
    assert json.loads(path.read_text())[field] == value
