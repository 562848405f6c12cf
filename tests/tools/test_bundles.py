"""`turbo4d build`, `run` and `verify`: what they write, say and refuse."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from turbo4d.runtime.bundle.bundle_files import sha256_of
from turbo4d.runtime.bundle.manifest import MANIFEST, FileRow
from turbo4d.runtime.bundle.manifest_file import read_manifest, to_json
from turbo4d.tools.bundles.build import TARGETS, byte_count
from turbo4d.tools.cli import main

from tests.tools.test_cli import refused

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

MODEL = "tests.tools.small_network:small"
STEPS = 4
ROOT = Path(__file__).parents[2]
BUILD = ["build", "--model", MODEL, "--steps", str(STEPS), "--plan", "balanced"]
RUN = """
import json, sys
from turbo4d.tools.cli import main
status = main(sys.argv[1:])
foreign = ("turbo4d.compiler", "turbo4d.passes", "torch._dynamo", "torch._inductor")
print(json.dumps({"status": status, "loaded": [m for m in sys.modules if m.startswith(foreign)]}))
"""


def told(capsys: Any, *words: object, status: int = 0) -> Any:
    assert main([*map(str, words), "--json"]) == status
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def built(tmp_path_factory: Any) -> tuple[Path, Any]:
    """A bundle, and what building it said with --json."""
    folder = tmp_path_factory.mktemp("bundles") / "small.turbo4d"
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("TURBO4D_ENGINE_STORE", str(folder.parent / "store"))
        words = [*BUILD, "--target", "onnxruntime", "--out", str(folder), "--json"]
        assert main(words) == 0
    return folder, json.loads(printed.getvalue())


@pytest.fixture(scope="module")
def bundle(built: tuple[Path, Any]) -> Path:
    return built[0]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: Any) -> Path:
    """What `generate --compare` writes of the same network."""
    folder = tmp_path_factory.mktemp("generated") / "out"
    words = ["--model", MODEL, "--steps", str(STEPS), "--compare", "--runs", "1"]
    assert main(["generate", *words, "--out", str(folder)]) == 0
    return folder


def test_build_lists_every_engine(built: tuple[Path, Any]) -> None:
    folder, found = built
    manifest = read_manifest(folder)
    assert manifest.model == MODEL
    assert [row["name"] for row in found["engines"]] == [row.name for row in manifest.engines]
    assert {row["status"] for row in found["engines"]} == {"run"}
    assert all(row["error"] < 1e-4 for row in found["engines"])
    assert all(row["graph_bytes"] > 0 for row in found["engines"])
    assert found["need"]["total"] > found["weights_bytes"] > 0


def test_a_bundle_is_kept_without_force(bundle: Path, capsys: Any) -> None:
    before = (bundle / MANIFEST).read_bytes()
    status, error = refused(capsys, *BUILD, "--out", bundle)
    assert (status, "exists; give force to replace it" in error) == (2, True), error
    assert (bundle / MANIFEST).read_bytes() == before


def test_a_run_in_a_process_of_its_own_is_what_generate_gives(
    bundle: Path, compared: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["run", str(bundle), "--compare-with", str(compared), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"status": 0, "loaded": []}
    assert {entry.name for entry in out.iterdir()} == {
        "plan.json", "report.json", "sheet.png", "turbo.gif",
    }  # fmt: skip
    report = json.loads((out / "report.json").read_text())
    assert report["events"] == []
    assert report["closeness"]["scene 0"]["psnr_db"] >= 50
    assert report["closeness"]["scene 0"]["psnr_mask_db"] >= 50
    ours = json.loads((out / "plan.json").read_text())
    assert ours["levels"] == json.loads((compared / "plan.json").read_text())["levels"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seed", "1"], "is of seed 0; this run has 1. Name another folder, or generate again."),
        (["--scene", "3"], "has no scene 3; it has scene 0."),
    ],
)
def test_a_folder_of_something_else_is_not_compared_with(
    words: list[str], said: str, bundle: Path, compared: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    status, error = refused(capsys, "run", bundle, "--compare-with", compared, *words, "--out", out)
    assert (status, error.endswith(said)) == (2, True), error
    assert not out.exists()


def test_verify_says_what_passed(bundle: Path, capsys: Any) -> None:
    found = told(capsys, "verify", bundle, "--require-run")
    assert found["passed"]
    assert {row["status"] for row in found["rows"]} == {"passed"}
    assert [row["name"] for row in found["rows"]][-2:] == ["whole run", "sample"]
    assert found["sample_psnr_db"] >= 50
    assert main(["verify", str(bundle)]) == 0
    text = capsys.readouterr().out
    assert "  prologue" in text
    assert "passed: " in text


def test_verify_fails_where_the_weights_are_others(
    bundle: Path, tmp_path: Path, capsys: Any
) -> None:
    place = tmp_path / "wrong"
    shutil.copytree(bundle, place)
    manifest = read_manifest(place)
    path = place / manifest.weights_file
    data = bytearray(path.read_bytes())
    row = max(manifest.weights, key=lambda each: each.size_bytes)
    data[row.offset + 3] ^= 0x41  # of the first value sign and exponent
    path.write_bytes(data)
    row = FileRow(path.stat().st_size, sha256_of(path))
    files = {**manifest.files, manifest.weights_file: row}
    (place / MANIFEST).write_text(to_json(dataclasses.replace(manifest, files=files)))
    assert main(["verify", str(place)]) == 1
    printed = capsys.readouterr()
    assert "failed: " in printed.out
    assert printed.err.startswith("turbo4d: wrong: ")
    assert printed.err.count("\n") == 1
    assert "from plain torch's, where" in printed.err


def test_what_cannot_run_fails_only_where_it_must_run(
    bundle: Path, tmp_path: Path, capsys: Any
) -> None:
    place = tmp_path / "bare"
    shutil.copytree(bundle, place)
    manifest = read_manifest(place)
    files = {name: row for name, row in manifest.files.items() if not name.startswith("reference.")}
    (place / MANIFEST).write_text(to_json(dataclasses.replace(manifest, files=files)))
    assert {row["status"] for row in told(capsys, "verify", place)["rows"]} == {"not run"}
    assert main(["verify", str(place), "--require-run"]) == 1
    assert "'prologue' was not run: the bundle holds no reference" in capsys.readouterr().err


def test_a_damaged_bundle_is_one_sentence(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    place = tmp_path / "damaged"
    shutil.copytree(bundle, place)
    path = place / read_manifest(place).weights_file
    path.write_bytes(path.read_bytes()[:-1])
    for words in (["verify", place], ["run", place, "--out", tmp_path / "out"]):
        status, error = refused(capsys, *words)
        assert (status, path.name in error) == (1, True), error
    assert not (tmp_path / "out").exists()


SEE = "see 'turbo4d build --help'."
WRONG = {
    "no --out": (["build"], "--out is missing; name a new folder."),
    "unknown target": (
        ["build", "--target", "onnx", "--out", "x"],
        "--target 'onnx' is unknown; choose 'aot-inductor', 'jetson-orin', 'jetson-thor', "
        "'onnxruntime', 'tensorrt', 'tensorrt-rtx', 'torch-tensorrt', 'triton'.",
    ),
    "unknown form": (
        ["build", "--form", "variant", "--out", "x"],
        "--form 'variant' is unknown (did you mean 'variants'?); choose 'conditional', 'variants'.",
    ),
    "unknown dtype": (
        ["build", "--dtype", "int8", "--out", "x"],
        "--dtype 'int8' is unknown; choose 'bf16', 'fp16', 'fp32'.",
    ),
    "memory": (
        ["build", "--max-memory", "much", "--out", "x"],
        f"argument --max-memory: got 'much', wanted bytes such as 8GiB or 500MB; {SEE}",
    ),
    "a setting without a value": (
        ["build", "--setting", "weights", "--out", "x"],
        "--setting 'weights' is not of the form NAME=VALUE.",
    ),
    "a setting twice": (
        ["build", "--setting", "a=1", "--setting", "a=2", "--out", "x"],
        "--setting 'a' comes twice; give it once.",
    ),
    "no lowering here": (
        ["build", "--lowering", "eager", "--out", "x"],
        f"option '--lowering' is unknown (did you mean '--setting'?); {SEE}",
    ),
    "no bundle to run": (
        ["run", "nowhere", "--out", "x"],
        "'nowhere' is no bundle; name a folder that turbo4d build wrote.",
    ),
    "no bundle to verify": (
        ["verify", "nowhere"],
        "'nowhere' is no bundle; name a folder that turbo4d build wrote.",
    ),
    "nowhere to run to": (["run", "."], "--out is missing; name a new folder."),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_call(case: str, capsys: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    words, wanted = WRONG[case]
    assert refused(capsys, *words) == (2, wanted)
    assert list(tmp_path.iterdir()) == []


def test_the_targets_are_the_compilers_own() -> None:
    from turbo4d.compiler.bundle.targets import TARGETS as KNOWN

    assert sorted(KNOWN) == [*TARGETS]


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("8GiB", 8 << 30), ("500MB", 500_000_000), ("1.5kib", 1536), ("2 gb", 2 * 10**9)],
)
def test_bytes(text: str, size: int) -> None:
    assert byte_count(text) == size
