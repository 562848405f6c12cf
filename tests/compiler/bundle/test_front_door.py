"""`turbo4d.build`: a bundle that gives what the module gives, whole or not at all."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from turbo4d.compiler.bundle.findings import WHOLE_RUN
from turbo4d.compiler.bundle.verification import verify
from turbo4d.compiler.errors import LowerError
from turbo4d.runtime.bundle.bundle_files import check_files
from turbo4d.runtime.bundle.manifest import MANIFEST
from turbo4d.runtime.bundle.manifest_file import read_manifest
from turbo4d.runtime.errors import BundleError, MemoryPlanError, OptionError, PlanError

import turbo4d
from tests.compiler import captures
from tests.compiler.bundle.networks import SIGMAS, network

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def build(folder: Path, **options: Any) -> Any:
    module, call = network()
    given: dict[str, Any] = {
        "plan": "balanced", "levels": SIGMAS, "use": ("chain",), "target": "onnxruntime", **options,
    }  # fmt: skip
    return turbo4d.build(module, kwargs=call, out=folder, **given)


def calls() -> list[dict[str, Tensor]]:
    """One call for each level, each with a sample of its own."""
    _, call = network()
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(call["x"].shape, generator=generator)
    return [
        {**call, "x": call["x"] + 0.1 * step * noise,
         "timesteps": torch.full_like(call["timesteps"], sigma).log() / 4}
        for step, sigma in enumerate(SIGMAS)
    ]  # fmt: skip


def run(denoiser: Any) -> tuple[list[Tensor], Any]:
    results: list[Tensor] = []
    with torch.no_grad(), turbo4d.session(denoiser, steps=len(SIGMAS), levels=SIGMAS) as session:
        for step, call in enumerate(calls()):
            session.step(step)
            results.append(denoiser(**call))
        return results, session.report()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("front") / "bundle"
    return folder, build(folder, name="chain")


def test_it_gives_what_the_backend_gives(bundle: tuple[Path, Any], fresh_dynamo: None) -> None:
    module, _ = network()
    options = {"plan": "balanced", "levels": SIGMAS, "regions": ("chain",)}
    wanted, said = run(torch.compile(module, backend="turbo4d", options=options))
    got, report = run(turbo4d.load(bundle[0]))
    assert report["calls_by_variant"] == said["calls_by_variant"]
    assert report["calls_by_variant"]["stack.0.chain.reuse"] > 0
    assert report["events"] == []
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)


def test_the_report_says_what_was_built(bundle: tuple[Path, Any]) -> None:
    folder, report = bundle
    names = [each.name for each in report.engines]
    assert names == ["prologue", "compute+stack.0.chain.w", "stack.0.chain.reuse", "compute"]
    assert [each.status for each in report.engines] == ["run"] * 4
    assert all(each.error is not None and each.error < 1e-5 for each in report.engines)
    written = sum(path.stat().st_size for path in folder.iterdir() if path.name != MANIFEST)
    assert report.files_bytes == written
    assert json.loads(json.dumps(report.to_json()))["engines"][2]["status"] == "run"
    assert "stack.0.chain.reuse" in str(report)
    assert 0 < report.need.weights <= report.weights_bytes <= 1.05 * report.need.weights


def test_the_manifest_is_what_a_reader_accepts(bundle: tuple[Path, Any]) -> None:
    folder, _ = bundle
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    assert {path.name for path in folder.iterdir()} == {MANIFEST, *manifest.files}
    assert manifest.model == "chain"
    assert manifest.target.executed
    assert manifest.signature.kinds == ("input",) * 5
    assert manifest.signature.names[manifest.signature.sample] == "x"
    assert {row.source for row in manifest.engines[1].takes if row.kind == "weight"} <= {
        row.name for row in manifest.weights
    }


def test_every_graph_is_proven(bundle: tuple[Path, Any]) -> None:
    folder, _ = bundle
    for row in read_manifest(folder).engines:
        onnx.checker.check_model(str(folder / row.graph), full_check=True)
        model = onnx.load(folder / row.graph, load_external_data=False)
        held = [weight for weight in model.graph.initializer if weight.external_data]
        assert {weight.name for weight in held} == {
            each.name for each in row.takes if each.kind == "weight"
        }


def test_one_engine_for_all(tmp_path: Path, bundle: tuple[Path, Any]) -> None:
    report = build(tmp_path / "one", form="conditional")
    assert [each.name for each in report.engines] == ["prologue", "conditional"]
    assert report.engines[1].error < 1e-5
    for ours, theirs in zip(run(turbo4d.load(tmp_path / "one"))[0],
                            run(turbo4d.load(bundle[0]))[0], strict=True):  # fmt: skip
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(("form", "kept"), [("variants", 10), ("conditional", 5)])
def test_a_preset_of_a_gated_transformer(form: Any, kept: int, tmp_path: Path) -> None:
    """Its variants' slots hold what is behind the gates; one engine's hold whole residuals."""
    module, call = captures.build("mm_dit")
    turbo4d.build(
        module, kwargs=call, out=tmp_path / "bundle", plan="balanced", levels=SIGMAS,
        target="onnxruntime", form=form,
    )  # fmt: skip
    found = verify(tmp_path / "bundle")
    assert {row.status for row in found.rows} == {"passed"}
    assert found.rows[-1].name == WHOLE_RUN
    engine = found.manifest.engines[1]
    assert sum(row.kind == "slot" for row in engine.gives) == kept


def test_without_exact_passes_there_is_no_prologue(tmp_path: Path) -> None:
    report = build(tmp_path / "plain", plan="none", references=False)
    assert [each.name for each in report.engines] == ["compute"]
    assert [each.status for each in report.engines] == ["built, not executed"]
    manifest = read_manifest(tmp_path / "plain")
    assert manifest.prologue is None
    assert not manifest.target.executed
    module, _ = network()
    denoiser = turbo4d.load(tmp_path / "plain")
    with torch.no_grad():
        for call in calls()[:2]:
            torch.testing.assert_close(denoiser(**call), module(**call), atol=2e-5, rtol=2e-5)


def test_a_bundle_that_is_there_is_kept(bundle: tuple[Path, Any], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(bundle[0], folder)
    before = read_manifest(folder)
    with pytest.raises(BundleError) as caught:
        build(folder)
    assert str(caught.value) == (
        f"bundle {str(folder)!r} exists; give force to replace it, or name another folder."
    )
    (folder / "compute.0123456789ab.onnx").write_text("left by a build that was killed")
    (folder / "notes.txt").write_text("of who looks after the bundle")
    report = tmp_path / "report.json"
    report.write_text("{}")
    build(folder, plan="exact", force=True, calibration=report)
    after = read_manifest(folder)
    assert after.plan != before.plan
    assert {path.name for path in folder.iterdir()} == {MANIFEST, "notes.txt", *after.files}
    assert any(name.startswith("calibration.") for name in after.files)


def test_other_folders_are_never_touched(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"name": "an extension of a browser"}')
    for force in (False, True):
        with pytest.raises(BundleError) as caught:
            build(folder, force=force)
        assert str(caught.value) == (
            f"bundle {str(folder)!r} is a folder that holds no bundle; name another, or an empty "
            "one."
        )
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]
    with pytest.raises(BundleError, match="is a file; name a folder"):
        build(folder / "manifest.json")


def test_what_cannot_be_built_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MemoryPlanError) as caught:
        build(tmp_path / "deep" / "small", max_memory_bytes=100_000)
    assert "plan 'balanced' needs " in str(caught.value)
    assert "and the target has 100000: " in str(caught.value)
    with pytest.raises(OptionError) as refused:
        build(tmp_path / "deep" / "small", target="onxruntime")
    assert str(refused.value) == (
        "target 'onxruntime' is unknown; choose 'aot-inductor', 'jetson-orin', 'jetson-thor', "
        "'onnxruntime', 'tensorrt', 'tensorrt-rtx', 'torch-tensorrt', 'triton'. Did you mean "
        "'onnxruntime'?"
    )
    with pytest.raises(OptionError, match=r"^calibration '.*none.json' cannot be read \("):
        build(tmp_path / "deep" / "small", calibration=tmp_path / "none.json")
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="cannot be made: Not a directory; name another folder"):
        build(tmp_path / "file" / "small")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("levels", [[], [1.0, 2.0], [4.0, float("nan")], "abc", 5])
def test_levels_are_checked_before_the_capture(
    levels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turbo4d.compiler.bundle.front_door.take_apart", None)
    with pytest.raises(PlanError, match=r"^levels: "):
        build(tmp_path / "small", levels=levels)
    assert not [*tmp_path.iterdir()]


def test_what_is_no_module_is_refused(tmp_path: Path) -> None:
    for given, name in ((lambda x: x, "function"), (None, "NoneType")):
        with pytest.raises(OptionError, match=f"^module is a {name}; wanted an nn.Module in eval"):
            turbo4d.build(given, target="onnxruntime", out=tmp_path / "small")  # type: ignore[arg-type]
    assert not [*tmp_path.iterdir()]


def test_a_module_without_values_is_refused(tmp_path: Path) -> None:
    module, call = network()
    empty, out = copy.deepcopy(module).to("meta"), tmp_path / "out"
    with pytest.raises(OptionError) as caught:
        turbo4d.build(empty, kwargs=call, out=out, plan="none", levels=SIGMAS, target="onnxruntime")
    assert str(caught.value) == (
        "weight 'first.weight' is on the device 'meta' and has no values; a bundle holds the "
        "weights. Load them first."
    )
    assert not out.exists()


@pytest.mark.parametrize("cast", ["weights", "inside"])
def test_bfloat16_is_refused_before_anything_is_built(cast: str, tmp_path: Path) -> None:
    class Inside(torch.nn.Module):
        """Computes in bfloat16 what it takes in float32."""

        def __init__(self) -> None:
            super().__init__()
            self.whole = copy.deepcopy(network()[0])

        def forward(self, x: Tensor, **others: Any) -> Tensor:
            return self.whole(x.bfloat16().float(), **others)

    module = copy.deepcopy(network()[0]).bfloat16() if cast == "weights" else Inside().eval()
    said: list[str] = []
    with pytest.raises(LowerError) as caught:
        turbo4d.build(
            module, kwargs=network()[1], plan="none", levels=SIGMAS, target="onnxruntime",
            out=tmp_path / "bundle", progress=said.append, geometry={"views": 2, "frames": 3},
        )  # fmt: skip
    assert str(caught.value) == (
        "target 'onnxruntime:cpu' cannot be built in this dtype: ONNX Runtime has no CPU kernels "
        "for bfloat16; build in float32 or float16, or for another target."
    )
    assert said == ([] if cast == "weights" else ["capturing the module"])
    assert not (tmp_path / "bundle").exists()
