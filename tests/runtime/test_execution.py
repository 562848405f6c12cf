import json
import re

import pytest
import torch
from turbo4d.runtime import finite_watch
from turbo4d.runtime.errors import SessionError, StaleSlotError

from tests.runtime.fake import (
    REGIONS,
    REUSE,
    ROWS,
    SIGMAS,
    SLOT_BYTES,
    assert_equal,
    calls_of,
    expected,
    make_args,
    plan_of,
    run_all,
    runner,
)
from turbo4d import session


def test_the_plan_is_carried_out():
    plan = plan_of(*ROWS)
    fast, engines = runner(plan)
    calls = calls_of(5)
    with session(fast) as run:
        assert_equal(run_all(run, fast, calls), expected(plan, calls))
        assert run.plan == plan
    report = run.report()
    assert report == {
        "plan": "p",
        "steps": 5,
        "variants": 4,
        "engine_calls": 5,
        "calls_by_variant": engines.calls,
        "cache_peak_bytes": 3 * SLOT_BYTES,
        "cache_host_bytes": 0,
        "prologue_bytes": 0,
        "weights_bytes": 4,
        "decisions": [],
        "events": [],
    }
    assert report["cache_peak_bytes"] == plan.check(REGIONS).peak_bytes
    assert json.loads(json.dumps(report)) == report
    assert report["calls_by_variant"]["core.reuse"] == 2


def test_new_conditioning_drops_what_was_cached():
    fast, _ = runner(plan_of(streams={"a": [{}, REUSE, REUSE], "b": [{}, REUSE, REUSE]}))
    with session(fast) as run:
        for stream in ("a", "b"):
            run_all(run, fast, calls_of(1), stream)
        run.new_conditioning("a")
        for stream in ("a", "b"):
            run_all(run, fast, calls_of(2)[1:], stream)
        run.new_conditioning()
        for stream in ("a", "b"):
            run_all(run, fast, calls_of(3)[2:], stream)
    kinds = [(event["stream"], event["step"], event["kind"]) for event in run.report()["events"]]
    assert kinds == [("a", 1, "full-variant"), ("a", 2, "full-variant"), ("b", 2, "full-variant")]
    assert run.report()["events"][0]["message"] == (
        "slot 'core' holds nothing at step 1 of stream 'a'; everything was computed."
    )


def test_the_full_variant_fills_the_slots_that_later_steps_read():
    plan = plan_of(*ROWS)
    fast, _ = runner(plan)
    calls = calls_of(5)
    with session(fast) as run:
        run_all(run, fast, calls[:1])
        run.new_conditioning()
        outputs = run_all(run, fast, calls[1:])
    full = plan_of({}, {}, *ROWS[2:])
    assert_equal(outputs, expected(full, calls)[1:])
    assert len(run.report()["events"]) == 1


def test_another_shape_drops_the_slots():
    fast, _ = runner(plan_of({}, REUSE, REUSE))
    with session(fast) as run:
        run_all(run, fast, calls_of(1))
        run.step(1)
        w, x, *rest = make_args()
        assert fast(w, x[:4], *rest)[0].shape == (4,)
        run_all(run, fast, [(2, [w, x[:4], *rest])])
    events = run.report()["events"]
    assert [event["kind"] for event in events] == ["slots-dropped", "full-variant"]
    assert events[0]["message"] == "the sample is (4,) float32 on cpu after (6,) float32 on cpu."


def test_an_exception_in_an_engine_drops_the_slots():
    fast, engines = runner(plan_of({}, REUSE, REUSE))
    with session(fast) as run:
        run_all(run, fast, calls_of(1))
        run.step(1)
        fast(*make_args())
        run.step(2)
        engines.built[next(key for key in engines.built if key.reads)].fails.append(
            RuntimeError("out of memory")
        )
        with pytest.raises(RuntimeError, match="out of memory"):
            fast(*make_args())
        run.step(2)  # the step did not run, so it may be said again
        fast(*make_args())
    assert run.report()["engine_calls"] == 3
    kinds = [event["kind"] for event in run.report()["events"]]
    assert kinds == ["idle-step", "full-variant"]


def test_strict_makes_a_departure_an_error():
    fast, _ = runner(plan_of({}, REUSE), strict=True)
    with session(fast) as run:
        run.step(1)
        text = "slot 'core' holds nothing at step 1 of stream 'main'; run the steps before it, or "
        with pytest.raises(SessionError, match=f"^{re.escape(text)}leave strict off\\.$"):
            fast(*make_args())
        run_all(run, fast, calls_of(2))


def test_a_slot_that_is_too_old_at_a_call_is_refused():
    fast, _ = runner(plan_of({}, REUSE, {}, REUSE, max_age=2))
    text = (
        "slot 'core' is 3 steps old at step 3; the plan allows 2. "
        "Refresh at step 2 or raise max_age."
    )
    with session(fast) as run:
        run_all(run, fast, calls_of(1))
        run.step(3)  # past the step that would have refreshed it
        with pytest.raises(StaleSlotError, match=f"^{re.escape(text)}$"):
            fast(*make_args())


def test_a_slot_that_nobody_reads_any_more_is_let_go():
    fast, _ = runner(plan_of({}, REUSE, {}, REUSE, max_age=3))
    with session(fast) as run:
        run_all(run, fast, calls_of(2))
        run.step(3)
        fast(*make_args())
    assert [event["kind"] for event in run.report()["events"]] == ["full-variant"]


class Busy:
    """An event on a device that the host is far ahead of."""

    def __init__(self, waits):
        self.waits = waits

    def query(self):
        return False

    def synchronize(self):
        self.waits.append("synchronize")


def test_no_call_waits_for_the_device(monkeypatch):
    waits = []
    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        original = getattr(torch.Tensor, name)

        def counted(self, *args, _name=name, _original=original, **kwargs):
            waits.append(_name)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)
    monkeypatch.setattr(torch, "equal", lambda *_: waits.append("equal"))
    monkeypatch.setattr(finite_watch, "sent_to_host", lambda bounds: (bounds, Busy(waits)))
    fast, _ = runner("fast")
    calls = calls_of(8)
    with session(fast, levels=SIGMAS) as run:
        run_all(run, fast, calls)
    assert waits == []
    fast(*make_args())  # the same counters do notice a call without a session
    assert "cpu" in waits
