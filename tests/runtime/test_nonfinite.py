"""Slots that hold NaN or infinity: found, reported, computed anew, and never read."""

import re

import pytest
import torch
from turbo4d.runtime import finite_watch
from turbo4d.runtime.errors import NonfiniteSlotError, OptionError
from turbo4d.runtime.finite_watch import FiniteWatch
from turbo4d.runtime.runner import Runner

from tests.runtime.fake import (
    REUSE,
    SIGMAS,
    FakeEngine,
    assert_equal,
    calls_of,
    expected,
    make_args,
    plan_of,
    run_all,
    runner,
    signature,
)
from turbo4d import session

BAD = (float("nan"), float("inf"), -float("inf"))
KEPT = ("down.chain", "up.chain")


class Breaking(FakeEngine):
    """Breaks one number of a slot, in the steps whose sample says so; the output is whole."""

    bad = BAD[0]

    def __call__(self, args, prologue, slots_in):
        outputs, slots_out = super().__call__(args, prologue, slots_in)
        if slots_out and float(args[2][0]) in (500.0, 8.0):
            slots_out[-1][3] = self.bad
        return outputs, slots_out


def breaking(plan, bad=BAD[0], **options):
    def build(key):
        engine = Breaking(key)
        engine.bad = bad
        return engine

    return Runner(signature(), build, plan=plan, **options)


@pytest.mark.parametrize("bad", BAD)
def test_a_slot_that_is_not_finite_is_computed_anew(bad):
    chains = dict.fromkeys(KEPT, "reuse")
    plan = plan_of({}, {}, chains, chains, {}, chains)
    fast = breaking(plan, bad)
    calls = calls_of(6)
    with session(fast) as run:
        outputs = run_all(run, fast, calls)
    # Steps 1 and 4 break what they write; the steps after them compute everything again.
    assert_equal(outputs, expected(plan_of({}, {}, {}, chains, {}, {}), calls))
    events = run.report()["events"]
    assert [(event["kind"], event["step"]) for event in events] == [
        ("nonfinite-slot", 2),
        ("full-variant", 2),
        ("nonfinite-slot", 5),
        ("full-variant", 5),
    ]
    assert events[0]["message"] == (
        "slot 'up.chain' held NaN or infinity, written at step 1 of stream 'main'; it is computed "
        "anew."
    )


def test_what_is_extrapolated_loses_its_history():
    plan = plan_of({}, {}, {"core": "reuse(1)"}, {"core": "reuse(1)"})
    fast = breaking(plan)
    with session(fast) as run:
        outputs = run_all(run, fast, calls_of(4))
    kinds = [(event["kind"], event["step"]) for event in run.report()["events"]]
    assert kinds == [("nonfinite-slot", 2), ("full-variant", 2), ("lower-order", 3)]
    assert all(output.isfinite().all() for output in outputs)


@pytest.mark.parametrize("told", ["session", "option", "strict"])
def test_it_is_an_error_where_that_is_wanted(told):
    plan = plan_of({}, {}, REUSE)
    options = {"option": {"nonfinite": "raise"}, "strict": {"strict": True}}.get(told, {})
    fast = breaking(plan, **options)
    calls = calls_of(3)
    text = (
        "slot 'core' held NaN or infinity, written at step 1 of stream 'main'; the model gave "
        "them, or its input held them."
    )
    with session(fast, nonfinite="raise" if told == "session" else None) as run:
        run_all(run, fast, calls[:2])
        run.step(2)
        with pytest.raises(NonfiniteSlotError, match=f"^{re.escape(text)}$"):
            fast(*calls[2][1])


def test_a_session_that_raises_does_so_at_the_latest_where_it_closes():
    fast = breaking(plan_of({}, {}, REUSE))
    with (
        pytest.raises(NonfiniteSlotError, match="written at step 1"),
        session(fast, nonfinite="raise") as run,
    ):
        run_all(run, fast, calls_of(2))
    with session(fast) as run:
        run_all(run, fast, calls_of(2))
    assert [event["kind"] for event in run.report()["events"]] == ["nonfinite-slot"]


def test_whoever_does_not_look_reads_what_was_written():
    fast = breaking(plan_of({}, {}, REUSE))
    with session(fast, nonfinite="ignore") as run:
        outputs = run_all(run, fast, calls_of(3))
    assert outputs[2].isnan().tolist() == [False] * 3 + [True] + [False] * 2
    assert run.report()["events"] == []


def test_without_a_session_it_is_looked_for_too():
    plan = plan_of({}, {}, REUSE, {})
    fast = breaking(plan)
    outputs = [fast(*make_args(sigma, seed=n))[0] for n, sigma in enumerate(plan.levels)]
    assert all(output.isfinite().all() for output in outputs)
    assert [e["kind"] for e in fast.report()["events"]] == [
        "sync",
        "nonfinite-slot",
        "full-variant",
    ]


def test_one_stream_is_no_other():
    plan = plan_of(streams={"a": [{}, {}, REUSE], "b": [{}, {}, REUSE]})
    fast = breaking(plan)
    whole = {"a": calls_of(3), "b": [(n, make_args(0.5, seed=n)) for n in range(3)]}
    with session(fast) as run:
        outputs = {name: [] for name in whole}
        for step in range(3):
            for name, calls in whole.items():
                outputs[name] += run_all(run, fast, calls[step : step + 1], name)
    assert [(e["stream"], e["kind"]) for e in run.report()["events"]] == [
        ("a", "nonfinite-slot"),
        ("a", "full-variant"),
    ]
    assert_equal(outputs["b"], expected(plan_of({}, {}, REUSE), whole["b"]))


def test_the_prediction_of_finite_values_is_not_looked_at():
    fast, _ = runner(plan_of({}, {}, {"core": "reuse(1)"}, levels=SIGMAS[:3]))
    with session(fast, nonfinite="raise") as run:
        run_all(run, fast, calls_of(3))


class Late:
    """Arrives when it is told to."""

    def __init__(self):
        self.here, self.waited = False, 0

    def query(self):
        return self.here

    def synchronize(self):
        self.here, self.waited = True, self.waited + 1


def test_what_has_not_arrived_is_told_later(monkeypatch):
    events = []

    def sent(bounds):
        events.append(Late())
        return bounds, events[-1]

    monkeypatch.setattr(finite_watch, "sent_to_host", sent)
    watch = FiniteWatch()
    good, bad = torch.zeros(3), torch.tensor([1.0, BAD[1], 2.0])
    watch.look(["a", "a", "b"], [good, bad, bad.half()], 4)
    watch.look(["a"], [good], 5)
    watch.look(["c", "d", "e"], [bad.int(), torch.zeros(0), bad.bfloat16()], 6)
    assert watch.found() == []
    events[0].here = True
    assert watch.found() == [("a", 4), ("b", 4)]
    assert watch.found() == []
    events[2].here = True  # behind one that has not arrived
    assert watch.found() == []
    assert watch.found(wait=True) == [("e", 6)]
    assert [event.waited for event in events] == [0, 1, 1]


def test_what_is_dropped_is_looked_at_no_more():
    watch = FiniteWatch()
    watch.look(["a"], [torch.tensor([BAD[0]])], 0)
    watch.forget()
    assert watch.found(wait=True) == []


def test_another_choice_is_refused():
    text = "nonfinite is 'retry'; wanted one of 'ignore', 'raise', 'refresh'."
    fast, _ = runner(plan_of({}, REUSE))
    with pytest.raises(OptionError, match=f"^{re.escape(text)}$"):
        session(fast, nonfinite="retry")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=f"^{re.escape(text)}$"):
        runner("fast", nonfinite="retry")
