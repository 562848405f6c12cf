"""`turbo4d calibrate`: what a wrong call is told, and that nothing is written then."""

from __future__ import annotations

from pathlib import Path

import pytest
from turbo4d.tools.calibration import calibration, command
from turbo4d.tools.cli import main
from turbo4d.tools.parser import Parser

FILES = ("plan.json", "plan.report.json", "plan.html")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--out", "plan.json"], "--min-psnr is missing; name the dB that samples must keep"),
        (["--min-psnr", "35"], "--out is missing; name a new file, such as plan.json."),
        (
            ["--min-psnr", "35", "--out", "plan.txt"],
            "--out 'plan.txt' is no .json; name a file such as plan.json.",
        ),
        (
            ["--min-psnr", "-1", "--out", "plan.json"],
            "got '-1', wanted a number of dB from 0",
        ),
        (
            ["--min-psnr", "nan", "--out", "plan.json"],
            "got 'nan', wanted a number of dB from 0",
        ),
        (
            ["--min-psnr", "35", "--out", "plan.json", "--max-variants", "0"],
            "got '0', wanted a whole number from 1",
        ),
    ],
)
def test_a_wrong_call_is_one_sentence(
    words: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["calibrate", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert says in lines[0]
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", FILES)
def test_what_exists_is_kept_without_force(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text("mine")
    assert main(["calibrate", "--min-psnr", "35", "--out", str(tmp_path / "plan.json")]) == 2
    assert f"{name}' exists; name another file, or add --force." in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_interrupted_it_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        (tmp_path / "plan.state.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(calibration, "calibration", interrupt)
    assert main(["calibrate", "--min-psnr", "35", "--out", str(tmp_path / "plan.json")]) == 1
    error = capsys.readouterr().err
    assert "interrupted; what was found is kept in" in error
    assert "run the same command again to go on." in error
    assert [each.name for each in tmp_path.iterdir()] == ["plan.state.json"]


def test_the_command_that_finds_the_same_plan_names_what_is_unusual() -> None:
    parser = Parser()
    command.configure(parser)
    words = ["--min-psnr", "40", "--scenes", "2", "--out", "elsewhere.json"]
    assert calibration.command_line(parser.parse_args(words)) == (
        "turbo4d calibrate --model nano --min-psnr 40 --scenes 2"
    )
