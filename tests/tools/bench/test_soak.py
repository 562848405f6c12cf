"""The soak tells growth, slots that stay and engines that are built later."""

import dataclasses

import pytest
import torch
from turbo4d.runtime.slot_value import SlotValue
from turbo4d.tools.bench import soak
from turbo4d.tools.bench.suite import SuiteOptions
from turbo4d.tools.failures import JobError

OPTIONS = SuiteOptions(sessions=3, scenes=1, model="tests.tools.small_network:small")


def test_growth_is_of_the_last_tenth_over_the_second():
    warm = [50] * 10 + [100] * 80
    assert soak.growth_of([*warm, *[100] * 10]) == 0.0
    assert soak.growth_of([*warm, *[103] * 10]) == pytest.approx(0.03)
    assert soak.growth_of([7]) == 0.0


def test_a_run_is_a_session():
    (row,) = soak.rows(SuiteOptions())
    assert row.runs == 499
    assert row.settings["model"] == "nano"


def test_sessions_leave_nothing_behind(tmp_path):
    torch._dynamo.reset()
    (row,) = soak.rows(OPTIONS)
    few = dataclasses.replace(row, settings={**row.settings, "steps": 4})
    job = soak.prepare(few, tmp_path)
    with torch.no_grad():
        job.first()
        job.run()
        facts = job.facts()
        assert facts["sessions"] == len(facts["resident_bytes"]) == 2
        assert facts["slots_alive"] == facts["engines_built_later"] == 0
        assert job._engines[0] > 1
        kept = SlotValue((), 0)
        job.run()
        assert job.facts()["slots_alive"] == 1
        assert not job.facts()["flat"]
        del kept


def test_where_memory_cannot_be_read_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(soak, "_RESIDENT", tmp_path / "statm")
    with pytest.raises(JobError, match=r"^resident memory cannot be read: there is no .*; run the"):
        soak.prepare(soak.rows(OPTIONS)[0], tmp_path)
