import json

import pytest
from turbo4d.tools import readme_figures
from turbo4d.tools.readme_figures import README, RESULTS, TABLES, blocks, with_blocks
from turbo4d.tools.tables.results import tables

REPORT = {
    "scenes": [{}, {}, {}],
    "runs": 3,
    "model": "nano",
    "dtype": "fp32",
    "lowering": "eager",
    "device": "a machine",
    "threads": 2,
    "torch": "2.13.0",
    "commit": "0123456789abcdef",
}
PAGE = "before\n<!-- a:begin -->\nold\n<!-- a:end -->\nbetween\n<!-- b:begin -->\n<!-- b:end -->\n"


def test_only_what_stands_between_the_markers_changes():
    assert with_blocks(PAGE, {"a": "new"}) == PAGE.replace("old", "new")
    filled = PAGE.replace("<!-- b:begin -->\n", "<!-- b:begin -->\n\\1 x\n")
    assert with_blocks(PAGE, {"b": "\\1 x"}) == filled
    assert with_blocks(filled, {"b": "\\1 x"}) == filled


@pytest.mark.parametrize(("page", "times"), [("nothing", 0), (PAGE + PAGE, 2)])
def test_a_block_stands_in_the_page_once(page, times):
    with pytest.raises(ValueError, match=f"block 'a' stands {times} times in the page"):
        with_blocks(page, {"a": "new"})


def test_the_readme_shows_the_stored_reports():
    assert README.read_text() == with_blocks(README.read_text(), blocks(RESULTS))


def test_the_readme_says_what_was_not_measured(tmp_path):
    assert set(blocks(tmp_path).values()) == {"Not measured."}


def test_the_tables_are_the_stored_measurements():
    assert TABLES.read_text() == tables(RESULTS)


def test_what_was_not_measured_says_so(tmp_path):
    page = tables(tmp_path)
    assert page.count("Not measured.") == page.count("\n## ") > 1


def test_a_table_holds_the_measured_figures(tmp_path):
    row = {"name": "level at fast", "speedup": 4.0, "psnr_mask_db": 38.04, "latent_error": 0.0123,
           "psnr_mask_worst_db": 36.5, "gt_loss_mask_db": 0.06, "steps": "CLLC"}  # fmt: skip
    report = {**REPORT, "rows": [row]}
    (tmp_path / "regions-nano-v1.json").write_text(json.dumps(report))
    wanted = "| level at fast | 4.00x | 38.0 dB | 36.5 dB | 1.2e-02 | +0.06 dB | `CLLC` |"
    assert wanted in tables(tmp_path).splitlines()


@pytest.mark.parametrize(("stored", "status"), [("same", 0), ("other", 1)])
def test_check_tells_by_its_status(stored, status, tmp_path, monkeypatch):
    readme, page = tmp_path / "README.md", tmp_path / "tables.md"
    readme.write_text(PAGE.replace("old", stored))
    page.write_text(tables(RESULTS))
    monkeypatch.setattr(readme_figures, "README", readme)
    monkeypatch.setattr(readme_figures, "TABLES", page)
    monkeypatch.setattr(readme_figures, "blocks", lambda folder: {"a": "same"})
    assert readme_figures.main(["--check"]) == status
    assert readme.read_text() == PAGE.replace("old", stored)
