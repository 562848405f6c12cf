"""A whole measurement: it resumes, what is done is not done again, and what is wrong is said."""

import hashlib
import json
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from turbo4d.runtime.action import REUSE
from turbo4d.tools.measure import rivals as measure_rivals
from turbo4d.tools.rivals import measure
from turbo4d.tools.rivals.bench import Bench
from turbo4d.tools.rivals.deepcache import settings as deepcache
from turbo4d.tools.rivals.fewer_steps import settings as fewer_steps
from turbo4d.tools.rivals.setting import run_key
from turbo4d.tools.rivals.teacache import settings as teacache

from tests.tools.rivals.networks import REGIONS, STEPS, plan_of, signals


class FakeBench:
    """A network whose samples say which run made them; a rival gains 2 dB by each computed step."""

    run_of = Bench.run_of
    effort = Bench.effort

    def __init__(self, model, steps):
        self.model, self.steps = model, steps
        self.turbo = SimpleNamespace(regions=REGIONS)
        self.base = plan_of(({},) * STEPS)
        self._effort = SimpleNamespace(of=lambda run: float(self._computed(run)))
        self.sampled = Counter()
        self.stop_after = 10**9

    def _computed(self, run):
        return run[1] if isinstance(run, tuple) else sum(not row for row in run.streams["main"])

    def validation(self, scene):
        return f"validation {scene}"

    def held_out(self, scene):
        return f"held-out {scene}"

    def sample(self, asset, run):
        if sum(self.sampled.values()) >= self.stop_after:
            raise KeyboardInterrupt
        self.sampled[asset, run_key(run)] += 1
        digest = hashlib.sha256(f"{asset} {run_key(run)}".encode()).digest()[0] / 256
        return torch.tensor(20.0 + 2.0 * self._computed(run) + digest)

    def uncached(self, asset):
        self.sampled[asset, "uncached"] += 1
        return torch.zeros(1)

    def judge(self, asset, latent=None):
        return SimpleNamespace(latent=torch.zeros(1), of=float)


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Calls the script on the fake network; the bench and the recorded scenes lie on it."""
    call_ = SimpleNamespace(bench=FakeBench(None, STEPS), recorded=[], out=tmp_path / "out.json")
    model = SimpleNamespace(name="nano", weights_sha256="ab")

    def record(_, asset, steps):
        call_.recorded.append(asset)
        return torch.zeros(1), signals(1.0 + 0.1 * int(asset[-1]))

    def swept(steps, regions, scenes):
        assert len(scenes) == 4
        return [*fewer_steps(steps), *deepcache(steps, regions), *teacache(regions, scenes)]

    def run(*words, status=0):
        call_.bench.sampled.clear()
        call_.recorded.clear()
        words = ("--out", str(call_.out), "--scenes", "3", "--time-scenes", "2", *words)
        assert measure_rivals.main([*words, "--runs", "2"]) == status
        return json.loads(call_.out.read_text())

    call_.run = run
    monkeypatch.setattr(measure, "sweep", swept)
    monkeypatch.setattr(measure, "record", record)
    monkeypatch.setattr(measure_rivals, "load_model", lambda *_: model)
    monkeypatch.setattr(measure_rivals, "Bench", lambda *_: call_.bench)
    return call_


def test_an_interrupted_measurement_goes_on_where_it_stopped(call):
    whole = call.run("--psnr-only")
    runs, seen = Counter(call.bench.sampled), list(call.recorded)
    assert set(runs.values()) == {1}
    assert len(seen) == len(set(seen)) == 4 + 3
    call.out.unlink()
    done: Counter = Counter()
    for stop_after in (0, 5, len(runs) // 2, 10**9):
        call.bench.stop_after = stop_after
        if stop_after < len(runs):
            with pytest.raises(KeyboardInterrupt):
                call.run("--psnr-only")
        else:
            assert call.run("--psnr-only") == whole
        done += call.bench.sampled
    assert done == runs
    call.run("--psnr-only")
    assert not call.bench.sampled
    assert not call.recorded


def test_each_system_has_its_cheapest_at_each_target(call):
    found = call.run("--psnr-only")
    for system in ("fewer steps, Euler", "DeepCache", "TeaCache"):
        own = [row["psnr_mean_db"] for row in found["pareto"] if row["system"] == system]
        # The cheapest by construction has the PSNR right above the target.
        assert all(any(target <= db < target + 2.5 for db in own) for target in (30, 35, 40))
    assert all(row["seconds"] is None for row in found["pareto"])
    adaptive = [row for row in found["pareto"] if row["system"] == "TeaCache"]
    assert max(row["plans"] for row in adaptive) > 1


def test_time_is_taken_of_what_was_judged_and_once(call):
    call.run("--psnr-only")
    timed = call.run("--time-only")
    assert set(timed["seconds"]) == {"0", "1"}
    for scene, kept in timed["seconds"].items():
        assert set(kept) == {"uncached", *timed["psnr_db"][scene]}
        assert all(len(taken) == 2 for taken in kept.values())
    assert set(call.bench.sampled.values()) == {3}  # each warms up once
    assert all(row["speedup"] > 0 for row in timed["pareto"])
    assert timed["timing"]["scenes"] == [0, 1]
    call.run("--time-only")
    assert not call.bench.sampled


def test_a_plan_of_ours_is_judged_beside_them(call, tmp_path, capsys):
    call.run("--psnr-only")
    rows = tuple({} if step < 4 else {"core": REUSE} for step in range(STEPS))
    plan_of(rows).save(tmp_path / "mine.json")
    before = call.out.read_text()
    call.run("--time-only", "--plans", str(tmp_path / "mine.json"), status=2)
    assert "plan 'mine' has no PSNR; call with --psnr-only first." in capsys.readouterr().err
    assert call.out.read_text() == before
    found = call.run("--psnr-only", "--plans", str(tmp_path / "mine.json"))
    assert sum(call.bench.sampled.values()) == 3
    ours = [row for row in found["pareto"] if row["system"] == "turbo4d"]
    assert [(row["knob"], row["letters"]) for row in ours] == [("mine", "CCCC" + "K" * 16)]
    assert ours[0]["cache_peak_bytes"] == 4
    again = call.run("--psnr-only")
    assert [row["knob"] for row in again["pareto"] if row["system"] == "turbo4d"] == ["mine"]


def test_what_was_not_judged_is_not_timed(call, capsys):
    call.run("--time-only", status=2)
    said = capsys.readouterr().err
    assert "holds no PSNR of all 3 scenes; call with --psnr-only first." in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "9"], "was measured with steps 20, this call has 9; name another file"),
        (["--plans", "none.json"], "none.json: no such file or directory."),
        (["--scenes", "0"], "got '0', wanted a whole number from 1; see 'measure/rivals.py"),
    ],
)
def test_a_wrong_call_is_one_sentence(words, said, call, capsys):
    call.run("--psnr-only")
    capsys.readouterr()
    assert measure_rivals.main(["--out", str(call.out), *words]) in (1, 2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line for line in lines if said in line] == lines[-1:]
