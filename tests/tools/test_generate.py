"""`turbo4d generate`: what it writes, what it reports, and what it refuses."""

import contextlib
import io
import json
import math
import pickle

import pytest
import torch
from PIL import Image, ImageSequence
from safetensors.torch import load_file, save_file
from turbo4d.models.config import SV4DConfig
from turbo4d.models.metrics import psnr
from turbo4d.models.unet import SV4DUNet
from turbo4d.runtime.plan import Plan
from turbo4d.tools import pictures
from turbo4d.tools.cli import main

from tests.tools.test_cli import refused

STEPS = 2
VIEWS, FRAMES, SIZE = 4, 3, 64  # of model tiny
FILES = {
    "baseline.gif", "difference.png", "plan.json", "report.json", "samples.safetensors",
    "sheet.png", "turbo.gif",
}  # fmt: skip
NUMBER, COUNT, NOTHING = float, int, type(None)
CONTRACT = {
    "model": str, "weights": str, "weights_sha256": str, "scene": int, "seed": int, "steps": int,
    "plan": str, "lowering": str, "dtype": str, "device": str, "torch": str, "threads": int,
    "baseline_s": NUMBER, "turbo_s": NUMBER, "speedup": NUMBER, "runs": int, "compile_s": NUMBER,
    "variants": int, "calls_by_variant": dict, "psnr_db": NUMBER, "psnr_mask_db": NUMBER,
    "ssim": NUMBER, "psnr_min_view_db": NUMBER, "control_steps": int, "control_solver": str,
    "control_s": NUMBER, "control_psnr_db": NUMBER, "control_psnr_mask_db": NUMBER,
    "cache_peak_bytes": int, "weights_bytes": int, "events": list,
}  # fmt: skip
TRUTH = (
    "gt_psnr_baseline_db", "gt_psnr_turbo_db", "gt_psnr_mask_baseline_db",
    "gt_psnr_mask_turbo_db", "trivial_psnr_mask_db",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of one comparison of tiny over two scenes, and what it printed with --json."""
    out = tmp_path_factory.mktemp("generate") / "out"
    words = ["--model", "tiny", "--scene", "3,5", "--steps", str(STEPS), "--runs", "1"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = main(["generate", *words, "--compare", "--json", "--out", str(out)])
    assert status == 0
    return out, json.loads(printed.getvalue())


@pytest.fixture(scope="module")
def report(made):
    return json.loads((made[0] / "report.json").read_text())


@pytest.fixture(scope="module")
def samples(made):
    return load_file(made[0] / "samples.safetensors")


def test_writes_these_files_and_no_others(made):
    out, _ = made
    assert {entry.name for entry in out.iterdir()} == {*FILES, "scene_5"}
    assert {entry.name for entry in (out / "scene_5").iterdir()} == FILES - {
        "plan.json",
        "report.json",
    }
    assert [entry.name for entry in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("field", CONTRACT)
def test_report_has(field, report):
    assert type(report[field]) is CONTRACT[field]
    if CONTRACT[field] is NUMBER:
        assert math.isfinite(report[field])


def test_report_says_what_was_not_measured(report):
    assert report["weights"] == "random"
    assert [report[field] for field in TRUTH] == [None] * len(TRUTH)
    assert report["gt_reason"] == (
        "model 'tiny' has no trained autoencoder, so its sample shows no scene"
    )


def test_json_prints_what_the_report_holds(made, report):
    assert made[1] == report


def test_report_agrees_with_itself(report):
    calls = report["calls_by_variant"]
    assert sum(calls.values()) == STEPS + calls["prologue"]
    assert calls["prologue"] == 1
    assert [row["scene"] for row in report["scenes"]] == [3, 5]
    speedups = [row["baseline"]["seconds"] / row["turbo"]["seconds"] for row in report["scenes"]]
    assert report["speedup"] == pytest.approx(sum(speedups) / 2)
    assert set(report["controls"]) == {"euler", "dpmpp_2m"}
    better = report["controls"][report["control_solver"]]
    assert better["psnr_mask_db"] == report["control_psnr_mask_db"]
    assert better["psnr_mask_db"] == max(c["psnr_mask_db"] for c in report["controls"].values())
    assert 1 <= report["control_steps"] <= STEPS
    assert report["commit"] is None or len(report["commit"].removesuffix("-dirty")) == 40


def test_samples_have_the_contract_shapes(samples):
    image = (VIEWS, FRAMES, 3, SIZE, SIZE)
    shapes = {name: image for name in ("baseline", "turbo", "control", "ground_truth")}
    shapes |= {"mask": (VIEWS, FRAMES, 1, SIZE, SIZE)}
    assert {name: tuple(tensor.shape) for name, tensor in samples.items()} == shapes
    assert all(tensor.dtype == torch.float32 for tensor in samples.values())
    assert all(0 <= tensor.min() and tensor.max() <= 1 for tensor in samples.values())


def test_figures_follow_from_the_samples(samples, report):
    baseline, turbo, mask = samples["baseline"], samples["turbo"], samples["mask"]
    row = report["scenes"][0]
    assert row["turbo"]["psnr_db"] == pytest.approx(min(psnr(turbo, baseline), 200.0))
    assert row["turbo"]["psnr_mask_db"] == pytest.approx(min(psnr(turbo, baseline, mask), 200.0))
    control = row["controls"][report["control_solver"]]
    assert control["psnr_db"] == pytest.approx(min(psnr(samples["control"], baseline), 200.0))


def test_pictures(made):
    out, _ = made
    scale = pictures.enlargement(SIZE)
    for name in ("turbo.gif", "baseline.gif"):
        with Image.open(out / name) as animation:
            assert len(list(ImageSequence.Iterator(animation))) == 2 * FRAMES - 2
            assert animation.info["loop"] == 0
            width = VIEWS * (SIZE * scale + pictures.GAP_PX) - pictures.GAP_PX
            assert animation.size == (width, SIZE * scale + pictures.HEADER_PX)
    for name in ("sheet.png", "difference.png"):
        with Image.open(out / name) as sheet:
            assert sheet.size == pictures.sheet_size(VIEWS, FRAMES, SIZE, SIZE)


def test_plan_is_the_one_that_was_carried_out(made, report):
    plan = Plan.load(made[0] / "plan.json")
    assert (plan.name, plan.steps) == (report["plan"], STEPS)


def test_a_plan_of_another_schedule_or_geometry(made, capsys, tmp_path):
    plan = made[0] / "plan.json"
    words = ["generate", "--model", "tiny", "--out", tmp_path / "out"]
    assert refused(capsys, *words, "--plan", plan, "--steps", "3") == (
        2,
        f"--plan '{plan}' is for {STEPS} steps; this run has 3. Add --steps {STEPS}, or name "
        "another plan.",
    )
    found = json.loads(plan.read_text())
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**found, "levels": [80.0, 0.002]}))
    assert refused(capsys, *words, "--plan", other, "--steps", str(STEPS)) == (
        2,
        f"--plan '{other}' is for sigma 80 at step 0; this run has 700. Name a plan made for this "
        "schedule.",
    )
    other.write_text(json.dumps({**found, "geometry": {**found["geometry"], "views": 8}}))
    assert refused(capsys, *words, "--plan", other, "--steps", str(STEPS)) == (
        2,
        f"--plan '{other}' is for batch 2, views 8, frames 3, height 16, width 16; this model has "
        "batch 2, views 4, frames 3, height 16, width 16. Name a plan made for this model.",
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["other.json"]


def test_an_existing_folder_is_kept(made, capsys):
    out, _ = made
    before = (out / "report.json").read_bytes()
    assert refused(capsys, "generate", "--model", "tiny", "--out", out) == (
        2,
        f"--out '{out}' exists; name another folder, or add --force.",
    )
    assert (out / "report.json").read_bytes() == before


def test_a_failed_write_leaves_nothing(capsys, tmp_path, monkeypatch):
    from turbo4d.tools import generation

    def half(*_):
        (folder,) = tmp_path.glob(".out.*")
        (folder / "report.json").write_text("{")
        raise OSError(28, "No space left on device", "report.json")

    monkeypatch.setattr(generation, "compare", half)
    words = ["generate", "--model", "tiny", "--compare", "--out", tmp_path / "out"]
    assert refused(capsys, *words) == (1, "report.json: no space left on device.")
    assert list(tmp_path.iterdir()) == []


def weights(folder, **changes):
    """A weights file of tiny, with tensors taken out (None) or replaced."""
    tensors = SV4DUNet(SV4DConfig.named("tiny")).state_dict()
    for name, tensor in changes.items():
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    path = folder / "weights.safetensors"
    save_file(tensors, path)
    return path


def test_checkpoints(capsys, tmp_path):
    out = tmp_path / "out"
    words = ["generate", "--model", "tiny", "--out", out, "--checkpoint"]
    total = len(SV4DUNet(SV4DConfig.named("tiny"), device="meta").state_dict())

    path = weights(tmp_path, **{"out.2.bias": None})
    assert refused(capsys, *words, path) == (
        2,
        f"load_checkpoint: {path} does not hold this network's {total} tensors: 1 missing "
        "('out.2.bias').",
    )
    path = weights(tmp_path, **{"out.2.bias": torch.zeros(5)})
    assert refused(capsys, *words, path) == (
        2,
        f"load_checkpoint: {path} does not hold this network's {total} tensors: 1 mis-shaped "
        "('out.2.bias' is [5], wanted [4]).",
    )
    path.write_bytes(b"nonsense")
    status, got = refused(capsys, *words, path)
    assert status == 2
    assert got.startswith(f"load_checkpoint: {path} is not a readable safetensors file (")
    path.write_bytes(pickle.dumps({"a": 1}))
    assert refused(capsys, *words, path) == (
        2,
        f"load_checkpoint: {path} is a pickle, which can run code when it is read; convert it to "
        "safetensors.",
    )
    path.unlink()
    assert refused(capsys, *words, path) == (
        2,
        f"load_checkpoint: {path} cannot be read (No such file or directory).",
    )
    assert list(tmp_path.iterdir()) == []


def test_nano_without_its_weights(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("turbo4d.tools.load_model.weights_path", lambda: tmp_path / "nano.x")
    assert refused(capsys, "generate", "--out", tmp_path / "out") == (
        2,
        "--model 'nano' has no weights file (nano.x is missing); give --checkpoint FILE, or use "
        "--model tiny, whose weights are random.",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_sampled(capsys, tmp_path):
    out = tmp_path / "out"
    assert refused(capsys, "generate", "--model", "sv4d", "--out", out) == (
        2,
        "--model 'sv4d' cannot be sampled in this version, which has neither its image encoder nor "
        "its autoencoder; choose 'nano' or 'tiny', or call turbo4d.session in the model's own "
        "script.",
    )
    name = "tests.tools.networks:convolution"
    assert refused(capsys, "generate", "--model", name, "--out", out) == (
        2,
        f"--model '{name}' made a Convolution; generate samples an SV4DUNet with frames and views "
        "set, and any other model through turbo4d.session in its own loop.",
    )
    assert refused(capsys, "generate", "--model", "tiny", "--device", "tpu", "--out", out) == (
        2,
        "--device 'tpu' is unknown; choose 'auto', 'cpu' or 'cuda'.",
    )
