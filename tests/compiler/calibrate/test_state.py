"""state: stopped at any point, the file is whole, and it is refused where it is another's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from turbo4d.compiler.calibrate import state as module
from turbo4d.compiler.calibrate.state import State
from turbo4d.compiler.errors import CalibrationError

IDENTITY = {"model": "m", "examples": "e"}


def test_findings_are_made_once_even_by_another_process(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    made: list[int] = []

    def make() -> dict[str, int]:
        made.append(1)
        return {"value": 7}

    assert State(path, IDENTITY).once("a", make) == {"value": 7}
    assert State(path, IDENTITY).once("a", make) == {"value": 7}
    assert made == [1]
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]


def test_without_a_file_findings_live_in_memory(tmp_path: Path) -> None:
    state = State(None, IDENTITY)
    state.put("a", 1)
    assert state.get("a") == 1
    assert state.get("b") is None
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("at", ["write", "fsync", "replace"])
def test_interrupted_while_writing_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    path = tmp_path / "state.json"
    state = State(path, IDENTITY)
    state.put("a", 1)
    before = path.read_text()

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    if at == "replace":
        monkeypatch.setattr(Path, "replace", interrupt)
    elif at == "fsync":
        monkeypatch.setattr(module.os, "fsync", interrupt)
    else:
        monkeypatch.setattr(module.json, "dumps", interrupt)
    with pytest.raises(KeyboardInterrupt):
        state.put("b", 2)
    monkeypatch.undo()
    assert path.read_text() == before
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]
    assert State(path, IDENTITY).get("a") == 1
    assert State(path, IDENTITY).get("b") is None


def test_a_state_of_another_calibration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    State(path, IDENTITY).put("a", 1)
    with pytest.raises(
        CalibrationError,
        match=r"^state 'state.json' is of another calibration: its examples is 'e' and this one's "
        r"'f'; name another file\.$",
    ):
        State(path, {**IDENTITY, "examples": "f"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"^state 's.json' is no JSON \(.*\); remove it, or name another file\.$"),
        ('{"schema_version": 1, "ident', r"^state 's.json' is no JSON \(.*\); remove it, or"),
        ("[" * 100_000, r"^state .s.json. is no JSON \(maximum recursion.*\); remove it, or"),
        ('{"a": ' + "1" * 5000 + "}", r"^state .s.json. is no JSON \(Exceeds the limit"),
        ("[]", r"^state 's.json' is no state of a calibration; name another file, which need not"),
        ('{"levels": []}', r"^state 's.json' is no state of a calibration; name another file,"),
        (
            '{"schema_version": 2}',
            r"^state 's.json' has schema_version 2; this turbo4d reads 1. Name another file, or "
            r"use the turbo4d that wrote it\.$",
        ),
        ('{"schema_version": 1}', r"^state 's.json' lacks found, identity or has more than it"),
        (
            '{"schema_version": 1, "identity": {}, "found": []}',
            r"^state 's.json' lacks an object or has more than it should; remove it, or name",
        ),
    ],
)
def test_what_is_no_state_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(text)
    with pytest.raises(CalibrationError, match=says):
        State(path, IDENTITY)


def test_any_truncated_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    State(path, IDENTITY).put("a", [1, 2])
    whole = path.read_text()
    assert json.loads(whole)["found"] == {"a": [1, 2]}
    for length in range(len(whole.rstrip())):
        path.write_text(whole[:length])
        with pytest.raises(CalibrationError, match=r"^state 's.json' "):
            State(path, IDENTITY)
