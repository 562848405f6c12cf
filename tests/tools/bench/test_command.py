"""`turbo4d bench`: wrong calls, rows that fail, an interruption, and what is written."""

import json
from types import SimpleNamespace

import pytest
import torch
from turbo4d.tools.bench import benchmark, suite
from turbo4d.tools.bench.row import RowSpec
from turbo4d.tools.bench.store import Store
from turbo4d.tools.cli import main

from tests.tools.bench.fakes import FakeProcess

SECONDS = {"eager": 8.0, "turbo4d:fast": 2.0}


class Fake:
    """A suite of fake processes; `fails` and `on_word` may be set."""

    def __init__(self, monkeypatch):
        self.fails, self.log = {}, []
        self.on_word = lambda spec, word: None
        module = SimpleNamespace(rows=self.rows)
        monkeypatch.setattr(benchmark, "load_suite", lambda name: module)
        monkeypatch.setattr(benchmark, "RowProcess", self.open)
        self.module = module

    def rows(self, options):
        return [RowSpec("cpu", "g", system, runs=options.runs or 1) for system in SECONDS]

    def open(self, spec, folder, limit_s):
        return FakeProcess(spec, self.log, SECONDS, self.fails, self.on_word)


@pytest.fixture
def fake(monkeypatch):
    return Fake(monkeypatch)


def bench(out, *words):
    return main(["bench", "--suite", "cpu", "--out", str(out), *words])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--out", "x.json"], "--suite is missing; choose cpu, gpu, peers, soak."),
        (["--suite", "gppu", "--out", "x.json"],
         "--suite 'gppu' is unknown (did you mean 'gpu'?); choose 'cpu', 'gpu', 'peers', 'soak'."),
        (["--suite", "cpu"], "--out is missing; name a new file, such as out/bench.json."),
        (["--suite", "cpu", "--out", "x.txt"], "--out 'x.txt' is no .json file; name one."),
        (["--suite", "cpu", "--out", "x.json", "--runs", "0"],
         "argument --runs: got '0', wanted a whole number from 1; see 'turbo4d bench --help'."),
        (["--suite", "gpu", "--out", "x.json", "--device", "cuda:1"],
         "--device 'cuda:1' is unknown (did you mean 'cuda'?); choose 'auto', 'cpu', 'cuda'."),
    ],
)  # fmt: skip
def test_a_wrong_call_is_refused(capsys, words, sentence):
    assert main(["bench", *words]) == 2
    assert capsys.readouterr().err == f"turbo4d: {sentence}\n"


def test_every_suite_is_named_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    told = capsys.readouterr().out
    assert all(name in told for name in suite.SUITES)


def test_report_table_and_picture(fake, tmp_path, capsys):
    out = tmp_path / "new" / "x.json"
    assert bench(out) == 0
    report = json.loads(out.read_text())
    assert [row["system"] for row in report["rows"]] == ["eager", "turbo4d:fast"]
    assert report["rows"][1]["speedup"] == 4.0
    assert report["machine"]["torch"] == torch.__version__
    assert sorted(path.name for path in out.parent.iterdir()) == ["x.json", "x.png"]
    told = capsys.readouterr().out
    assert "turbo4d:fast  2 s (2 to 2)   4.00x" in told
    assert f"written to {out}" in told


def test_an_existing_report_is_kept(fake, tmp_path, capsys):
    out = tmp_path / "x.json"
    out.write_text("mine")
    assert bench(out) == 2
    assert capsys.readouterr().err == (
        f"turbo4d: --out {str(out)!r} exists; name another file, or add --force.\n"
    )
    assert fake.log == []
    assert out.read_text() == "mine"
    assert bench(out, "--force") == 0


@pytest.mark.parametrize("name", ["x.png", "x.trace.json"])
def test_an_existing_picture_or_trace_is_kept(fake, tmp_path, capsys, name):
    (tmp_path / name).write_text("mine")
    fake.module.profile = lambda options, trace: trace.write_text("{}") and "a table of time"
    assert bench(tmp_path / "x.json", "--profile") == 2
    assert f"{name}' exists; name another file, or add --force." in capsys.readouterr().err
    assert (fake.log, [path.name for path in tmp_path.iterdir()]) == ([], [name])
    assert (tmp_path / name).read_text() == "mine"
    assert bench(tmp_path / "x.json", "--profile", "--force") == 0
    assert (tmp_path / name).read_bytes() != b"mine"


def test_rows_are_kept_until_the_report_is_in_its_place(fake, tmp_path, monkeypatch):
    """Whatever happens between: the same command goes on."""

    def draw(report, path):
        path.write_text("")
        raise KeyboardInterrupt

    fake.module.draw = draw
    assert bench(tmp_path / "x.json") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json.part", "x.json.shared"]
    del fake.module.draw
    seen = []
    remove = Store.remove
    monkeypatch.setattr(
        Store, "remove", lambda self: seen.append((tmp_path / "x.json").exists()) or remove(self)
    )
    asked = len(fake.log)
    assert bench(tmp_path / "x.json") == 0
    assert (seen, len(fake.log)) == ([True], asked)


def test_a_folder_that_cannot_be_made_is_refused_before_anything_runs(fake, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert bench(tmp_path / "file" / "x.json") == 2
    assert "('file' is not a folder); name a place you can write." in capsys.readouterr().err
    assert fake.log == []


def test_a_failed_row_is_tried_again_by_the_same_command(fake, tmp_path, capsys):
    out = tmp_path / "x.json"
    fake.fails = {("turbo4d:fast", "first"): "it broke."}
    assert bench(out) == 0
    row = json.loads(out.read_text())["rows"][1]
    assert (row["error"], row["latency_s"]) == ("it broke.", None)
    told = capsys.readouterr().out
    assert "it broke." in told
    assert "1 of 2 rows could not run; the same command with --force tries these alone" in told
    fake.fails = {}
    assert bench(out, "--force") == 0
    assert json.loads(out.read_text())["rows"][1]["speedup"] == 4.0
    assert not out.with_name("x.json.part").exists()


def test_where_no_row_runs_the_job_has_failed(fake, tmp_path, capsys):
    fake.fails = {(system, "prepare"): "no." for system in SECONDS}
    assert bench(tmp_path / "x.json") == 1
    assert capsys.readouterr().err == "turbo4d: no row could run; the first: no.\n"


def test_ctrl_c_says_what_is_kept(fake, tmp_path, capsys):
    out = tmp_path / "x.json"

    def stop(spec, word):
        if (spec.system, word) == ("eager", "facts"):
            raise KeyboardInterrupt

    fake.on_word = stop
    assert bench(out) == 1
    assert capsys.readouterr().err == (
        f"turbo4d: interrupted; 1 rows are kept in '{out}.part', and the same command goes on with "
        "the others.\n"
    )
    assert not out.exists()
    fake.on_word, asked = (lambda spec, word: None), len(fake.log)
    assert bench(out) == 0
    assert {system for system, _ in fake.log[asked:]} == {"eager"}


def test_rows_are_chosen_by_name_with_their_baseline(fake, tmp_path, capsys):
    assert bench(tmp_path / "x.json", "--rows", "g/turbo4d:*") == 0
    assert len(json.loads((tmp_path / "x.json").read_text())["rows"]) == 2
    assert bench(tmp_path / "y.json", "--rows", "h/*") == 2
    assert capsys.readouterr().err == (
        "turbo4d: --rows 'h/*' matches no row; there are 'g/eager', 'g/turbo4d:fast'.\n"
    )


def test_profile_is_the_suites(fake, tmp_path, capsys):
    assert bench(tmp_path / "x.json", "--profile") == 2
    assert "--profile is nothing that suite 'cpu' knows; leave it out." in capsys.readouterr().err
    assert fake.log == []
    fake.module.profile = lambda options, trace: trace.write_text("{}") and "a table of time"
    assert bench(tmp_path / "x.json", "--profile") == 0
    assert (tmp_path / "x.trace.json").exists()
    assert "a table of time" in capsys.readouterr().out


def test_json_is_the_report(fake, tmp_path, capsys):
    assert bench(tmp_path / "x.json", "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "x.json").read_text())
