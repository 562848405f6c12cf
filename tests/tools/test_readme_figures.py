import json

import pytest
from turbo4d.tools import bundle_tables, readme_figures
from turbo4d.tools.readme_figures import (
    BEGIN,
    BUNDLES_BEGIN,
    BUNDLES_END,
    END,
    FOREIGN_BEGIN,
    FOREIGN_END,
    PARETO_BEGIN,
    PARETO_END,
    README,
    RESULTS,
    TABLES,
    bench_blocks,
    block,
    read_reports,
    with_block,
    with_figures,
)
from turbo4d.tools.result_tables import tables

REPORT = {
    "plan": "balanced",
    "calls_by_variant": {"compute+2w.ab": 6, "level.1.reuse+step.w": 1, "step.reuse": 13},
    "speedup": 2.5,
    "psnr_mask_db": 40.04,
    "ssim": 0.98765,
    "control_steps": 8,
    "control_solver": "euler",
    "control_psnr_mask_db": 30.06,
    "gt_psnr_mask_baseline_db": 18.5,
    "gt_psnr_mask_turbo_db": 18.25,
    "trivial_psnr_mask_db": {"white": 5.0, "mean_colour": 11.0},
    "scenes": [{}, {}, {}],
    "runs": 3,
    "model": "nano",
    "weights": "trained",
    "weights_sha256": "0123456789abcdef",
    "steps": 20,
    "dtype": "fp32",
    "lowering": "eager",
    "device": "a machine",
    "threads": 2,
    "torch": "2.13.0",
}


def test_a_row_holds_the_reports_figures():
    text = block([REPORT])
    row = next(line for line in text.splitlines() if line.startswith("| `balanced`"))
    assert row == (
        "| `balanced` | step, level | **2.50x** | **40.0 dB** | 0.9877 | "
        "8 steps (euler): 30.1 dB | +0.25 dB |"
    )
    assert "3 held-out scenes, 3 or more alternating runs" in text
    assert "best predictor without a model 11.0 dB" in text
    assert "GPU: not measured." in text


def test_reports_are_ordered_by_speed(tmp_path):
    for name, speedup in [("a", 3.0), ("b", 1.5)]:
        (tmp_path / f"generate-{name}.json").write_text(
            json.dumps({"plan": name, "speedup": speedup})
        )
    (tmp_path / "other.json").write_text("{}")
    assert [report["plan"] for report in read_reports(tmp_path)] == ["b", "a"]


def test_only_the_block_between_the_markers_changes():
    readme = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert with_block(readme, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


def test_the_readme_shows_the_stored_reports():
    assert README.read_text() == with_figures(README.read_text())


def test_the_tables_are_the_stored_measurements():
    assert TABLES.read_text() == tables(RESULTS)


def test_what_was_not_measured_says_so(tmp_path):
    page = tables(tmp_path)
    assert page.count("Not measured.") == page.count("\n## ") > 1


def test_a_table_holds_the_measured_figures(tmp_path):
    row = {"name": "level at fast", "speedup": 4.0, "psnr_mask_db": 38.04, "latent_error": 0.0123,
           "psnr_mask_worst_db": 36.5, "gt_loss_mask_db": 0.06, "steps": "CLLC"}  # fmt: skip
    report = {**REPORT, "commit": "0123456789abcdef", "rows": [row]}
    (tmp_path / "regions-nano-v1.json").write_text(json.dumps(report))
    wanted = "| level at fast | 4.00x | 38.0 dB | 36.5 dB | 1.2e-02 | +0.06 dB | `CLLC` |"
    assert wanted in tables(tmp_path).splitlines()


@pytest.mark.parametrize(("figures", "status"), [("same", 0), ("other", 1)])
def test_check_tells_by_its_status(figures, status, tmp_path, monkeypatch):
    readme = tmp_path / "README.md"
    text = "".join(
        f"{begin}\n{figures}\n{end}\n"
        for begin, figures, end in (
            (BEGIN, "same", END),
            (PARETO_BEGIN, "Not measured yet.", PARETO_END),
            (BUNDLES_BEGIN, bundle_tables.block(RESULTS), BUNDLES_END),
            (FOREIGN_BEGIN, "Not measured yet.", FOREIGN_END),
            *((begin, figures, end) for (begin, end), figures in bench_blocks().items()),
        )
    )
    readme.write_text(text)
    monkeypatch.setattr(readme_figures, "FOREIGN", tmp_path / "foreign.json")
    monkeypatch.setattr(readme_figures, "PARETO", tmp_path / "pareto.json")
    monkeypatch.setattr(readme_figures, "README", readme)
    monkeypatch.setattr(readme_figures, "TABLES", tmp_path / "tables.md")
    (tmp_path / "tables.md").write_text(tables(RESULTS))
    monkeypatch.setattr(readme_figures, "block", lambda reports: figures)
    assert readme_figures.main(["--check"]) == status
    assert readme.read_text() == text
