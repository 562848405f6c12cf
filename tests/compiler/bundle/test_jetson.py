"""Targets jetson-orin and jetson-thor: a kit, built with a stand-in for the device's trtexec."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from turbo4d.compiler.bundle.targets import target_of
from turbo4d.runtime.bundle.add_engines import add_engines
from turbo4d.runtime.bundle.bundle_files import check_files
from turbo4d.runtime.bundle.manifest_file import read_manifest
from turbo4d.runtime.errors import BundleError, OptionError

from tests.compiler.bundle.networks import assembled, parts

onnx = pytest.importorskip("onnx", reason="graphs are written with onnx")
# Writes to its engine the graph it was given, and keeps its arguments.
TRTEXEC = """\
#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$CALLS"
for each in "$@"; do
    case $each in
    --onnx=*) graph=${each#--onnx=} ;;
    --saveEngine=*) made=${each#--saveEngine=} ;;
    esac
done
if [[ $graph == "${REFUSED:-}"* && -n ${REFUSED:-} ]]; then echo "no such layer"; exit 3; fi
{ printf 'engine of '; cat "$graph"; } >"$made"
"""


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit as it leaves the build."""
    folder = tmp_path_factory.mktemp("kit") / "kit"
    assembled(folder, target_of("jetson-orin"))
    return folder


@pytest.fixture
def here(kit: Path, tmp_path: Path) -> Path:
    """A copy of it, with the stand-in beside."""
    subprocess.run(["cp", "-r", str(kit), str(tmp_path / "kit")], check=True)
    program = tmp_path / "bin" / "trtexec"
    program.parent.mkdir()
    program.write_text(TRTEXEC)
    program.chmod(0o755)
    return tmp_path / "kit"


def built(kit: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script as somebody on the device would, from another folder."""
    path = f"{kit.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    calls = str(kit.parent / "calls")
    env = {**os.environ, "PATH": path, "CALLS": calls, "PYTHON": sys.executable, **variables}
    script = ["bash", str(kit / "build.sh")]
    return subprocess.run(script, env=env, cwd=kit.parent, capture_output=True, text=True)


def test_the_script_is_bash(kit: Path) -> None:
    subprocess.run(["bash", "-n", str(kit / "build.sh")], check=True)


def test_a_kit_holds_graphs_whose_weights_are_inputs(kit: Path) -> None:
    manifest = read_manifest(kit)
    check_files(kit, manifest)
    assert (manifest.target.name, manifest.target.device) == ("jetson-orin", "sm87")
    assert not manifest.target.executed
    for row in manifest.engines:
        model = onnx.load(kit / row.engine, load_external_data=False)
        taken = [each.name for each in model.graph.input]
        assert taken == [each.name for each in row.takes]
        assert not any(each.external_data for each in model.graph.initializer)


def test_the_script_builds_each_engine_and_puts_it_into_the_manifest(here: Path) -> None:
    before = read_manifest(here)
    done = built(here)
    assert done.returncode == 0, done.stderr
    after = read_manifest(here)
    check_files(here, after)
    assert (after.target.name, after.target.device) == ("tensorrt", "sm87")
    assert after.target.settings["kit"] == "jetson-orin"
    for old, new in zip(before.engines, after.engines, strict=True):
        assert (here / new.engine).read_bytes() == b"engine of " + (here / old.engine).read_bytes()
        assert (new.takes, new.gives, new.graph) == (old.takes, old.gives, old.graph)
    calls = (here.parent / "calls").read_text().splitlines()
    assert len(calls) == len(before.engines)
    for call in calls:
        assert (
            "--stronglyTyped --noTF32 --skipInference --timingCacheFile=built/timing.cache" in call
        )
        assert "--fp16" not in call


def test_a_build_that_failed_says_where_and_goes_on_from_there(here: Path) -> None:
    manifest = read_manifest(here)
    text = (here / "manifest.json").read_bytes()
    last = manifest.engines[-1].engine
    failed = built(here, REFUSED=last)
    assert failed.returncode == 1
    assert f"build.sh: trtexec built no engine of {last}; its output is in built/" in failed.stderr
    assert "no such layer" in failed.stderr
    assert (here / "manifest.json").read_bytes() == text
    assert built(here).returncode == 0
    calls = (here.parent / "calls").read_text().splitlines()
    assert len(calls) == len(manifest.engines) + 1


def test_a_kit_is_built_anew_where_it_is_and_its_script_with_it(here: Path) -> None:
    assert built(here).returncode == 0
    found = parts()
    names = ("prologue", "core.reuse")
    fewer = dataclasses.replace(
        found,
        graphs=tuple(part for part in found.graphs if part.name in names),
        variants=tuple(row for row in found.variants if row.engine in names),
    )
    assembled(here, target_of("jetson-orin"), found=fewer)  # over the one with engines
    manifest = read_manifest(here)
    check_files(here, manifest)
    assert (manifest.target.name, len(manifest.engines)) == ("jetson-orin", 2)
    done = built(here)
    assert done.returncode == 0, done.stderr
    again = read_manifest(here)
    check_files(here, again)
    assert again.target.name == "tensorrt"
    # Built a second time, as after an update, it is of the same graphs.
    subprocess.run(["rm", "-r", str(here / "built")], check=True)
    assert built(here).returncode == 0
    assert read_manifest(here) == again
    with pytest.raises(BundleError, match=r"holds another 'build\.sh', which no build can replace"):
        assembled(here, target_of("jetson-thor"), found=fewer)
    assert read_manifest(here) == again


def test_without_trtexec_the_script_says_what_to_install(here: Path) -> None:
    done = built(here, TRTEXEC=str(here / "nothing"))
    assert done.returncode == 1
    assert "install libnvinfer-bin" in done.stderr
    assert not (here / "built").exists()


def test_engines_that_do_not_fit_the_bundle_are_refused(here: Path, tmp_path: Path) -> None:
    names = [row.name for row in read_manifest(here).engines]
    empty = tmp_path / "empty.engine"
    empty.touch()
    with pytest.raises(BundleError, match=r"is in one of the two alone\. Give each its file"):
        add_engines(here, dict.fromkeys(names[1:], empty), "sm87")
    with pytest.raises(BundleError, match="is empty; build it again"):
        add_engines(here, dict.fromkeys(names, empty), "sm87")
    with pytest.raises(BundleError, match="cannot be read"):
        add_engines(here, dict.fromkeys(names, tmp_path / "nothing"), "sm87")
    with pytest.raises(
        BundleError, match="device 'orin' is no compute capability; wanted one such"
    ):
        add_engines(here, dict.fromkeys(names, empty), "orin")


@pytest.mark.parametrize(
    ("spelled", "settings", "said"),
    [
        ("jetson-orin:sm89", {}, "'jetson-orin:sm89' is for sm87 alone; write 'jetson-orin'"),
        ("jetson-thor", {"workspace_mib": "big"}, "workspace_mib is 'big'; wanted a positive"),
        ("jetson-thor", {"fp16": "yes"}, "target 'jetson-thor' has no setting 'fp16'"),
    ],
)
def test_a_wrong_call_is_refused(spelled: str, settings: Any, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        target_of(spelled, settings)
