import json

from turbo4d.tools.tables.presets import block, read_reports

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


def test_a_row_holds_the_reports_figures(tmp_path):
    (tmp_path / "generate-balanced.json").write_text(json.dumps(REPORT))
    text = block(tmp_path)
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
