"""A report is drawn anew with what was measured since, of the same model only."""

import json

import pytest
from safetensors.torch import save_file
from turbo4d.tools.draw_report import main

from tests.tools.calibration_report import sample_images, sample_report


@pytest.fixture
def files(tmp_path):
    report = {**sample_report(), "pareto": []}
    same = ("model", "weights_sha256", "steps", "dtype")
    rivals = {**{key: report[key] for key in same}, "pareto": sample_report()["pareto"]}
    rivals["timing"] = {"device": "cpu: another", "threads": 7, "runs": 3, "scenes": [0, 1]}
    (tmp_path / "report.json").write_text(json.dumps(report))
    (tmp_path / "rivals.json").write_text(json.dumps(rivals))
    images = sample_images()
    samples = {"baseline": images["before"], "turbo": images["after"]}
    save_file({name: each.contiguous() for name, each in samples.items()}, tmp_path / "s.st")
    return tmp_path


def call(files, *more):
    return main([str(files / "report.json"), "--out", str(files / "x.html"), *more])


def test_rivals_and_images_are_added(files):
    assert call(files) == 0
    plain = (files / "x.html").read_text()
    assert "Policies of others and fewer steps: not measured" in plain
    assert "The asset before and after: not measured" in plain
    more = ("--pareto", str(files / "rivals.json"), "--images", str(files / "s.st"), "--force")
    assert call(files, *more) == 0
    drawn = (files / "x.html").read_text()
    assert "<td>teacache</td>" in drawn
    assert "cpu: another, 7 threads, 3 runs of each on 2 scenes" in drawn
    assert 'class="tile before' in drawn


def test_an_existing_page_is_kept(files, capsys):
    assert call(files) == 0
    assert call(files) == 2
    assert "exists; name another file, or add --force." in capsys.readouterr().err


def test_figures_of_another_model_are_refused(files, capsys):
    rivals = json.loads((files / "rivals.json").read_text())
    (files / "rivals.json").write_text(json.dumps({**rivals, "steps": 19}))
    assert call(files, "--pareto", str(files / "rivals.json")) == 2
    said = f"--pareto '{files}/rivals.json' was measured with steps 19, the report with 20; "
    assert capsys.readouterr().err == f"draw_report: {said}name one of the same.\n"
    assert not (files / "x.html").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON; name another file."),
        ("[]", "has no field 'plan'; name another file."),
        ('{"plan": {}, "schema_version": 2}', "has schema_version 2; this turbo4d draws 1."),
        ('{"plan": {}, "schema_version": 1}', "field 'schema_version' is missing"),
    ],
)
def test_a_file_that_is_no_report_is_refused(files, capsys, text, said):
    (files / "report.json").write_text(text)
    assert call(files) == 2
    assert said in capsys.readouterr().err
