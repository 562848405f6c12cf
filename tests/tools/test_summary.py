"""The text of a comparison: every figure beside its rivals."""

import pytest
from turbo4d.models.trivial import trivial_predictions
from turbo4d.tools import summary
from turbo4d.tools.scene_input import held_out_scene


def control(seconds, db):
    return {"steps": 9, "seconds": seconds, "psnr_mask_db": db, "psnr_db": db + 5,
            "gt_psnr_mask_db": 19.0, "gt_psnr_db": 23.0}  # fmt: skip


@pytest.fixture
def report():
    row = {
        "name": "scene 0", "speedup": 2.0, "baseline": {"seconds": 4.0},
        "turbo": {"seconds": 2.0, "psnr_mask_db": 40.0, "psnr_db": 45.0},
    }  # fmt: skip
    return {
        "model": "nano", "weights": "trained", "seed": 0, "steps": 20, "plan": "balanced",
        "lowering": "eager", "dtype": "fp32", "device": "cpu: X", "threads": 2, "torch": "2.13.0",
        "commit": None, "weights_sha256": "ab" * 32, "scenes": [row], "runs": 3, "speedup": 2.0,
        "baseline_s": 4.0, "turbo_s": 2.0, "baseline_spread_s": [3.9, 4.2],
        "turbo_spread_s": [1.9, 2.1], "compile_s": 5.0, "variants": 3,
        "cache_peak_bytes": 2**20, "weights_bytes": 2**24, "psnr_mask_db": 40.0, "psnr_db": 45.0,
        "psnr_min_view_db": 43.0, "ssim": 0.99, "gt_reason": None, "events": [],
        "gt_psnr_mask_baseline_db": 20.5, "gt_psnr_baseline_db": 24.5,
        "gt_psnr_mask_turbo_db": 20.4, "gt_psnr_turbo_db": 24.4,
        "trivial_psnr_mask_db": {"white": 3.9}, "trivial_psnr_db": {"white": 9.4},
        "controls": {"dpmpp_2m": control(1.99, 21.0), "euler": control(1.98, 28.0)},
        "control_psnr_mask_db": 28.0, "control_solver": "euler", "whole_step": None,
    }  # fmt: skip


def test_every_figure_stands_beside_its_rivals(report):
    text = summary.summary(report, "PLAN")
    for part in (
        "PLAN",
        "speed-up 2.00x   baseline 4.000 s (3.900 to 4.200)   turbo 2.000 s (1.900 to 2.100)   "
        "3 runs of each, in turn",
        "PSNR inside the object 40.00 dB   all pixels 45.00 dB",
        "uncached, 9 steps, Euler                        19.00 dB  23.00 dB",
        "no model: white                                  3.90 dB   9.40 dB",
        "9 steps, DPM-Solver++(2M)               1.990 s  21.00 dB  26.00 dB",
        "turbo is 12.00 dB better inside the object than the better control (Euler)",
    ):
        assert part in text
    assert text.index("inside the object 40.00") < text.index("all pixels 45.00")


def test_a_loss_is_called_one(report):
    report["control_psnr_mask_db"] = 41.5
    assert "turbo is 1.50 dB worse inside the object" in summary.summary(report, "")


def test_equal_bits_are_said_to_be_equal(report):
    report["psnr_db"] = 200.0
    text = summary.summary(report, "")
    assert "turbo against the uncached sample: equal in every bit" in text


def test_several_scenes_have_a_row_each(report):
    report["scenes"] = [report["scenes"][0], {**report["scenes"][0], "name": "scene 1"}]
    text = summary.summary(report, "")
    assert "medians of 2 scenes" in text
    assert "  scene 1 " in text


def test_the_whole_step_rival_is_named(report):
    report["whole_step"] = {
        "speedup": 1.9, "seconds": 2.1, "computed_steps": 10, "psnr_mask_db": 40.1, "psnr_db": 45.1,
    }  # fmt: skip
    text = summary.summary(report, "")
    assert "down to the same PSNR: 1.90x in 2.100 s, 10 of 20 steps computed" in text


def test_every_trivial_predictor_has_a_name_in_words():
    scene = held_out_scene(0, views=2, frames=2, size=16)
    assert set(trivial_predictions(scene.frames, scene.views)) == set(summary.TRIVIAL)
