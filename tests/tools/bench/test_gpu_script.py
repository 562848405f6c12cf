"""Suite `gpu` and its one script, small and on the CPU."""

from __future__ import annotations

import _ctypes
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from turbo4d.tools.bench import gpu_cache, gpu_cell, gpu_suite
from turbo4d.tools.bench.gpu_jobs import SampleJob
from turbo4d.tools.bench.gpu_network import Work
from turbo4d.tools.bench.gpu_rates import rates_of
from turbo4d.tools.bench.gpu_report import efficiency, noted, text_of
from turbo4d.tools.bench.gpu_smoke import PROBES, probed
from turbo4d.tools.bench.gpu_smoke_cuda import ON_CUDA
from turbo4d.tools.bench.row import RowResult, RowSpec
from turbo4d.tools.bench.suite import SuiteOptions
from turbo4d.tools.failures import CallError, JobError
from turbo4d.tools.tables.bench import gpu_block

from tests.compiler.denoisers import config_of

SCRIPT = Path(gpu_suite.__file__).with_name("gpu_script.py")
CPU = torch.device("cpu")


@pytest.fixture
def script(monkeypatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("gpu_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options(**more: Any) -> SuiteOptions:
    return SuiteOptions(**{"device": "cpu", **more})


def row(name: str, **settings: Any) -> RowSpec:
    return RowSpec(suite="gpu", group="g", system=name, settings=settings, warmups=0, runs=2)


class FakeJob:
    """Does what its row's settings say."""

    device = CPU

    def __init__(self, spec: RowSpec) -> None:
        self._fails = spec.settings.get("fails")
        self.ran = self.closed = 0
        if self._fails == "prepare":
            raise JobError("no such thing here.")

    def first(self) -> None:
        if self._fails == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nmore")

    def run(self) -> torch.Tensor:
        self.ran += 1
        if self._fails == "run":
            raise RuntimeError("launch failed")
        return torch.empty(0)

    def facts(self) -> dict[str, Any]:
        return {"ran": self.ran}

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def fakes(monkeypatch) -> None:
    suite = SimpleNamespace(prepare=lambda spec, folder: FakeJob(spec))
    monkeypatch.setattr(gpu_cell, "load_suite", lambda name: suite)


def told_by(specs: Sequence[RowSpec]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    order: list[str] = []
    last: dict[str, dict[str, Any]] = {}

    def tell(line: dict[str, Any]) -> None:
        json.dumps(line)
        if "now" in line:
            order.append(f"{line['now'].rpartition('/')[2]} {line['stage']}")
        else:
            last[line["row"]["system"]] = line

    gpu_cell.run_group(specs, Path(), tell)
    return order, last


@pytest.mark.usefixtures("fakes")
def test_rows_of_a_group_take_turns():
    order, last = told_by([row("eager"), row("one"), row("two")])
    runs = [each for each in order if "first" not in each]
    assert runs == [
        "eager run 1 of 2", "one run 1 of 2", "two run 1 of 2",
        "two run 2 of 2", "one run 2 of 2", "eager run 2 of 2",
    ]  # fmt: skip
    assert all(line["done"] and len(line["row"]["seconds"]) == 2 for line in last.values())
    assert last["two"]["row"]["baseline_s"] is not None
    assert last["eager"]["row"]["baseline_s"] is None
    assert last["one"]["row"]["ran"] == 2


@pytest.mark.usefixtures("fakes")
def test_a_row_that_fails_says_why_and_the_rest_goes_on():
    failing = [row(fails, fails=fails) for fails in ("memory", "prepare", "run")]
    _, last = told_by([row("eager"), *failing, row("after")])
    assert {name: line["row"]["error"] for name, line in last.items()} == {
        "eager": None,
        "memory": "out of memory: CUDA out of memory.",
        "prepare": "no such thing here.",
        "run": "RuntimeError: launch failed",
        "after": None,
    }
    # Memory will be as scarce the next time; what else failed is tried once more.
    assert {name for name, line in last.items() if line.get("done")} == {"eager", "memory", "after"}


def test_every_row_is_named_once_and_a_group_begins_with_the_network_as_it_is():
    for device in ("cpu", "cuda"):
        specs = gpu_suite.rows(options(device=device))
        names = [spec.name for spec in specs]
        assert len({*names}) == len(names)
        assert all(spec.settings["kind"] in gpu_suite._JOBS for spec in specs)
        first: dict[str, RowSpec] = {}
        for spec in specs:
            first.setdefault(spec.group, spec)
            json.dumps(spec.to_json())
        systems = {spec.system for spec in first.values()}
        assert systems <= {"eager", "ceilings", "profile", "inductor", "kernels"}
    full = {spec.name for spec in gpu_suite.rows(options(device="cuda"))}
    assert {
        "ceilings/ceilings", "sv4d/share/profile", "sv4d2/eager/turbo4d:exact/eager",
        "sv4d/eager-graphs/turbo4d:exact/eager/cuda graphs", "sv4d/V16 F40/eager/one step",
        "sv4d/inductor-graphs/turbo4d:fast/inductor/cuda graphs",
        "sv4d/triton-kernels/turbo4d:exact/triton-kernels", "sv4d/kernels/kernels/cuts",
        "sv4d/max-autotune/inductor/max-autotune",
        "sv4d/eager/turbo4d:shape:fast/eager",
    } <= full  # fmt: skip


def test_a_report_goes_on_where_it_ended(script, tmp_path):
    machine = {"device": "x"}
    path = tmp_path / "r.json"
    done, half, bad = (RowResult(spec=row(name)).to_json() for name in ("done", "half", "bad"))
    report = script.Report(path, machine, force=False)
    report.put(half, done=False)
    report.put(done, done=True)
    report.put({**bad, "error": "no"}, done=False)
    again = script.Report(path, machine, force=False)
    assert [again.has(each["digest"]) for each in (done, half, bad)] == [True, False, False]
    again.put(half, done=True)
    assert [each["system"] for each in again.data["rows"]] == ["half", "done", "bad"]
    with pytest.raises(
        CallError, match="of another machine: device was 'x' and is 'y'; name anoth"
    ):
        script.Report(path, {"device": "y"}, force=False)
    assert script.Report(path, machine, force=True).data["rows"] == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "[" * 100_000, '{"schema_version": 1, "machine": {}, "suite": "cpu"}',
     '{"schema_version": 1, "machine": {}, "suite": "gpu", "smoke": [], "rows": [{}]}'],
)  # fmt: skip
def test_a_file_of_something_else_is_left_as_it_is(script, tmp_path, text, capsys):
    path = tmp_path / "r.json"
    path.write_text(text)
    assert script.main(["--device", "cpu", "--out", str(path)]) == 2
    told = (
        f"gpu_script: --out '{path}' is no report of suite gpu; name another file, or add --force"
    )
    assert capsys.readouterr().err.startswith(told)
    assert path.read_text() == text


def test_rows_of_other_options_are_not_lost(script, tmp_path):
    report = script.Report(tmp_path / "r.json", {}, force=False)
    report.put(RowResult(spec=row("eager", steps=20), seconds=(1.0,)).to_json(), done=True)
    report.refuse_others([row("eager", steps=20), row("other", steps=4)])
    with pytest.raises(CallError) as caught:
        report.refuse_others([row("eager", steps=4)])
    assert str(caught.value) == (
        f"--out '{tmp_path}/r.json' holds row 'g/eager' of steps 20, and this call says 4; name "
        "another --out, or add --force to drop what it holds."
    )
    with pytest.raises(CallError, match="of another number of runs; name another --out"):
        report.refuse_others([dataclasses.replace(row("eager", steps=20), runs=9)])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "0"], "argument --steps: got '0', wanted a whole number from 1"),
        (["--runs", "-1"], "argument --runs: got '-1', wanted a whole number from 1"),
        (["--budget-s", "nan"], "argument --budget-s: got 'nan', wanted seconds from 1 to 1000000"),
        (["--model", "nope"], "argument --model: invalid choice: 'nope'"),
        (["--rows", "nope"], "--rows 'nope' matches no row; --list names them."),
        (["--nope"], "unrecognized arguments: --nope"),
    ],
)
def test_a_wrong_call_is_a_sentence_and_measures_nothing(script, tmp_path, capsys, words, said):
    assert script.main(["--device", "cpu", "--out", str(tmp_path / "r.json"), *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"gpu_script: {said}")
    assert told.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def stopping_at(system, reason, asked):
    """A process of a group that measures its rows in turn, and stops at one for a reason."""

    def child(word, text, until, heard):
        given = [RowSpec.from_json(spec) for spec in json.loads(text)["specs"]]
        asked.append([spec.system for spec in given])
        for spec in given:
            heard({"now": spec.name, "stage": "first run"})
            if spec.system == system:
                return reason
            heard({"row": RowResult(spec=spec, seconds=(1.0,)).to_json(), "done": True})
        return None

    return child


def test_a_process_that_dies_costs_its_row_alone(script, tmp_path, monkeypatch):
    specs = [row("eager"), row("dies"), row("after")]
    report = script.Report(tmp_path / "r.json", {}, force=False)
    asked: list[list[str]] = []

    monkeypatch.setattr(
        script, "child", stopping_at("dies", "its process ended with status -9", asked)
    )
    script.measure_group(specs, tmp_path, report, time.monotonic() + 9, lambda text: None)
    assert asked == [["eager", "dies", "after"], ["eager", "after"]]
    told = {each["system"]: (each["error"], each["done"]) for each in report.data["rows"]}
    assert told == {
        "eager": (None, True),
        "dies": ("its process ended with status -9.", False),
        "after": (None, True),
    }


def test_what_ran_out_of_time_comes_last_in_the_next_call(script, tmp_path, monkeypatch):
    specs = [row("eager"), row("slow"), row("after")]
    path, machine = tmp_path / "r.json", {"device": "x"}
    asked: list[list[str]] = []

    monkeypatch.setattr(script, "child", stopping_at("slow", "time was up", asked))
    for _ in range(2):
        report = script.Report(path, machine, force=False)
        script.measure_group(specs, tmp_path, report, time.monotonic() + 9, lambda text: None)
    assert asked == [["eager", "slow", "after"], ["eager", "after", "slow"]]
    told = {each["system"]: (each["error"], each["done"]) for each in report.data["rows"]}
    why = "time was up in its first run; the next call tries it after all others."
    assert told == {"eager": (None, True), "slow": (why, False), "after": (None, True)}
    assert [report.late(spec) for spec in specs] == [False, True, False]
    half = RowResult(spec=specs[1], seconds=(2.0,)).to_json()
    report.put(half, done=False)
    report.ran_out(specs[1], "run 2 of 2")  # what was measured of it stays
    assert report.late(specs[1])
    assert [each["latency_s"] for each in report.data["rows"]] == [1.0, 2.0, 1.0]


def test_time_that_is_up_ends_the_process_and_all_it_started(script, monkeypatch, tmp_path):
    mark = tmp_path / "alive"
    slow = tmp_path / "slow.py"
    later = f"import time; time.sleep(3); open({str(mark)!r}, 'w')"
    slow.write_text(
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {later!r}])\n"
        "print('{\"now\": 1}', flush=True)\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(script, "__file__", str(slow))
    heard: list[Any] = []
    begun = time.monotonic()
    assert script.child("", "", begun + 1.5, heard.append) == "time was up"
    assert time.monotonic() - begun < 20
    assert heard in ([{"now": 1}], [])
    time.sleep(2.5)
    assert not mark.exists()


def test_the_script_lists_its_rows_from_a_bare_checkout(tmp_path):
    """Without site-packages' own start-up nothing of ours is installed; nor may it want more."""
    blocked = ("PIL", "matplotlib", "diffusers", "onnx", "onnxruntime", "ortools")
    (tmp_path / "blocked.py").write_text(
        f"import sys, runpy\nfor name in {blocked}:\n    sys.modules[name] = None\n"
        "import torch\n"
        "try:\n    import turbo4d\nexcept ImportError:\n    pass\n"
        "else:\n    sys.exit('installed')\n"
        "sys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    libraries = str(Path(torch.__file__).parents[1])
    words = [sys.executable, "-S", str(tmp_path / "blocked.py"), str(SCRIPT)]
    done = subprocess.run(
        [*words, "--list", "--device", "cpu", "--out", str(tmp_path / "r.json")],
        env={**os.environ, "PYTHONPATH": libraries},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "tiny/eager/turbo4d:exact/eager" in done.stdout.splitlines()


def test_code_is_kept_beside_the_report(tmp_path):
    """Inductor, once imported, names a folder itself; so the script must do so before."""
    env = {name: value for name, value in os.environ.items() if name != gpu_cache.VARIABLE}
    code = (
        "import importlib.util, os, sys\n"
        f"spec = importlib.util.spec_from_file_location('gpu_script', {str(SCRIPT)!r})\n"
        "script = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(script)\n"
        f"script.measure_group = lambda *_: print('kept in', os.environ[{gpu_cache.VARIABLE!r}])\n"
        f"script.main(['--device', 'cpu', '--no-smoke', '--out', {str(tmp_path / 'r.json')!r}])\n"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    assert f"kept in {tmp_path}/r.json.files/inductor" in done.stdout.splitlines()


def test_a_library_that_a_killed_linker_left_goes(tmp_path):
    whole = Path(_ctypes.__file__).read_bytes()
    (tmp_path / "ab").mkdir()
    for name, data in (("whole", whole), ("cut", whole[:-1]), ("short", whole[:20]), ("none", b"")):
        (tmp_path / "ab" / f"{name}.so").write_bytes(data)
    (tmp_path / "ab" / "script.so").write_bytes(b"INPUT(another.so) " * 9)
    gone = gpu_cache.drop_half_written(tmp_path)
    assert sorted(path.stem for path in gone) == ["cut", "none", "short"]
    assert sorted(path.stem for path in (tmp_path / "ab").iterdir()) == ["script", "whole"]
    assert gpu_cache.drop_half_written(tmp_path / "nowhere") == []


def test_a_small_group_from_noise_to_latent(tmp_path, monkeypatch):
    """The network as it is, and turbo4d's plans of it, in one process."""
    monkeypatch.setattr(Work, "config", property(lambda self: config_of("mini")))
    more = {"steps": 1, "dtype": "fp32"}
    rows = gpu_suite.rows(options(seed=77, more=more))  # a work that nobody else has made
    specs = [spec for spec in rows if spec.group == "tiny/eager"][:2]
    small = [dataclasses.replace(spec, runs=1) for spec in specs]
    found: dict[str, dict[str, Any]] = {}
    gpu_cell.run_group(
        small, tmp_path, lambda line: found.update({line["row"]["system"]: line["row"]})
        if "row" in line else None,
    )  # fmt: skip
    assert [each["error"] for each in found.values()] == [None, None]
    exact = found["turbo4d:exact"]
    assert exact["relative_error"] < 1e-5
    assert exact["weights"] == "random"
    assert exact["calls_by_variant"] == {"compute": 1, "prologue": 1}
    assert exact["flops"] > 1e8
    assert exact["bytes"] > 1e6
    assert exact["speedup"] > 0
    names = [spec.name for spec in specs]
    machine = {"device": "cpu", "torch": "2", "threads": 1}
    told = noted([*found.values()][::-1], names)
    assert [each["name"] for each in told] == names
    report = {"machine": machine, "commit": None, "smoke": [], "rows": told}
    assert names[1] in text_of(report)
    assert "| `turbo4d:exact` eager |" in gpu_block(report)


def test_a_latent_that_is_not_finite_has_no_error(tmp_path):
    spec = row("turbo4d:exact", model="tiny", device="cpu", dtype="fp32", steps=1, alone=False)
    job = SampleJob.__new__(SampleJob)
    job._alone, job._reference = False, tmp_path / "uncached.safetensors"
    save_file({"latent": torch.arange(2.0)}, job._reference)
    told = {}
    for value, finite in ((1.0, True), (float("nan"), False)):
        job._latent = torch.full((2,), value)
        told[finite] = job._distance()
        assert told[finite]["finite"] is finite
    assert told[False] == {"relative_error": None, "latent_psnr_db": None, "finite": False}
    found = RowResult(spec=spec, seconds=(1.0,), facts=told[False]).to_json()
    json.dumps(found, allow_nan=False)
    found["settings"]["kind"] = "sample"
    machine = {"device": "cpu", "torch": "2"}
    assert "NaN" in text_of({"machine": machine, "smoke": [], "rows": [found]})


def test_ceilings_are_measured_and_shares_of_them_follow():
    rates = rates_of(torch.float32, CPU)
    assert rates.matmul_flops_per_s > 1e9
    assert rates.copy_bytes_per_s > 1e8
    ceilings = {"matmul_flops_per_s": 100.0, "copy_bytes_per_s": 50.0}
    assert efficiency({"latency_s": 2.0, "flops": 100, "bytes": 10}, ceilings) == {
        "mfu": 0.5, "bandwidth_share": 0.1,
    }  # fmt: skip
    assert efficiency({"latency_s": None, "flops": 1}, ceilings)["mfu"] is None


QUICK = ("operator schemas", "out of memory", "events and pinned copies", "slot storages")


@pytest.mark.parametrize("name", [*QUICK, "pre-dispatch trace", "versions and counters"])
def test_a_probe_of_what_this_torch_has_is_ok(name):
    found = probed(name, PROBES[name], CPU)
    assert found["ok"], found["reason"]
    assert found["note"]


def test_a_probe_of_what_is_not_there_says_what(monkeypatch):
    monkeypatch.delattr(torch, "empty_like")

    def probe(device: torch.device) -> str:
        return str(torch.empty_like(torch.zeros(2)))

    found = probed("x", probe, CPU)
    assert not found["ok"]
    assert found["reason"].startswith("AttributeError: ")
    assert not PROBES.keys() & ON_CUDA.keys()
