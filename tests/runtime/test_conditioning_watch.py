"""Conditioning that changes within a run of a session: never a wrong result, and told."""

import pytest
import torch
from turbo4d.runtime import finite_watch, opening
from turbo4d.runtime.conditioning_watch import ConditioningWatch
from turbo4d.runtime.errors import SessionError
from turbo4d.runtime.variant_key import VariantKey

from tests.runtime.fake import (
    REUSE,
    ROWS,
    assert_equal,
    calls_of,
    denoise,
    expected,
    make_args,
    plan_of,
    run_all,
    runner,
    signature,
)
from turbo4d import session

TEXT = (
    "conditioning 'context' of stream 'main' changed at step 2, within a run; what was held was "
    "dropped. To say so, call run.new_conditioning() before such a step, or compile with "
    "invariant={'context': False} where it changes at every step."
)


def full(args):
    return denoise(args, VariantKey((), (), exact=True), {})[0]


def changed(step=2, count=4):
    """Calls with other conditioning from one step on, in tensors of their own."""
    return [(n, make_args(10.0 - n, n, context=9.0 if n >= step else 0.5)) for n in range(count)]


@pytest.mark.parametrize("hoists", [True, False])
def test_what_is_held_is_dropped_and_an_event_says_so(hoists):
    plan = plan_of({}, REUSE, REUSE, REUSE)
    fast, engines = runner(plan, hoists=hoists)
    with session(fast) as run:
        outputs = run_all(run, fast, changed())
    assert torch.equal(outputs[2], full(changed()[2][1]))
    assert [event["kind"] for event in run.report()["events"]] == [
        "new-conditioning", "full-variant",
    ]  # fmt: skip
    assert run.report()["events"][0]["message"] == TEXT
    assert run.report()["events"][0]["step"] == 2
    assert run.report()["calls_by_variant"]["core.reuse"] == 2
    assert engines.prologue.calls == (2 if hoists else 0)


def test_an_exact_plan_is_right_where_a_network_is_told_something_new_at_each_step():
    fast, engines = runner("exact", hoists=True, levels=(10.0, 9.0, 8.0))
    calls = [(n, make_args(10.0 - n, n, context=float(n))) for n in range(3)]
    with session(fast) as run:
        assert_equal(run_all(run, fast, calls), [full(args) for _, args in calls])
    assert engines.prologue.calls == 3


def test_strict_makes_it_an_error():
    fast, _ = runner(plan_of({}, REUSE, REUSE, REUSE), strict=True)
    with session(fast) as run, pytest.raises(SessionError, match="changed at step 2, within a run"):
        run_all(run, fast, changed())


def test_a_loop_that_builds_it_anew_at_each_step_changes_nothing():
    plan = plan_of(*ROWS)
    fast, _ = runner(plan, hoists=True)
    with session(fast) as run:
        assert_equal(run_all(run, fast, calls_of(5)), expected(plan, calls_of(5)))
    assert run.report()["events"] == []


def test_the_tensor_of_the_last_call_is_not_looked_at(monkeypatch):
    monkeypatch.setattr(finite_watch, "sent_to_host", None)
    fast, _ = runner(plan_of(*ROWS), hoists=True, nonfinite="ignore")
    context = torch.full((2,), 0.5)
    with session(fast) as run:
        run_all(run, fast, [(n, [*args[:3], context]) for n, args in calls_of(5)])
    assert run.report()["events"] == []


def test_a_write_to_it_is_seen():
    fast, _ = runner(plan_of({}, REUSE))
    args = make_args()
    with session(fast) as run:
        run_all(run, fast, [(0, args)])
        args[3].add_(1)
        run_all(run, fast, [(1, args)])
    assert run.report()["events"][0]["kind"] == "new-conditioning"


def test_what_is_said_or_begins_anew_is_no_event():
    fast, _ = runner(plan_of({}, {}, {}))
    with session(fast) as run:
        run_all(run, fast, changed(step=9, count=3))
        run_all(run, fast, [(0, make_args(context=2.0))])
        run.new_conditioning()
        run_all(run, fast, [(1, make_args(context=3.0))])
    assert run.report()["events"] == []


def test_a_plan_that_holds_nothing_does_not_look(monkeypatch):
    monkeypatch.setattr(opening, "ConditioningWatch", None)
    fast, _ = runner("none", hoists=True, levels=(10.0, 9.0, 8.0, 7.0))
    with session(fast) as run:
        run_all(run, fast, changed())
    assert run.report()["events"] == []


class Late:
    """Arrives when it is told to."""

    here = False

    def query(self):
        return self.here


@pytest.mark.parametrize(
    "other",
    [torch.full((3,), 0.5), torch.full((2,), 0.5, dtype=torch.float64)],
    ids=["shape", "dtype"],
)
def test_another_form_is_a_change(other):
    watch = ConditioningWatch(signature())
    args = make_args()
    watch.look(args, 0)
    watch.look([*args[:3], other], 1)
    assert watch.found() == ("context", 1)


def test_on_a_device_the_answer_is_taken_when_it_has_arrived(monkeypatch):
    monkeypatch.setattr(finite_watch, "sent_to_host", lambda answers: (answers, Late()))
    watch = ConditioningWatch(signature())
    for step, args in changed(count=4):
        watch.look(args, step)
        assert watch.found() is None
    monkeypatch.setattr(Late, "here", True)
    assert watch.found() == ("context", 2)
    watch.forget()
    assert watch.found() is None


def test_a_late_answer_says_which_steps_were_wrong(monkeypatch):
    monkeypatch.setattr(finite_watch, "sent_to_host", lambda answers: (answers, Late()))
    fast, _ = runner(plan_of({}, REUSE, REUSE, REUSE))
    with session(fast) as run:
        run_all(run, fast, changed()[:3])
        monkeypatch.setattr(Late, "here", True)
        run_all(run, fast, changed()[3:])
    [event, _] = run.report()["events"]
    assert str(event["message"]).startswith(
        "conditioning 'context' of stream 'main' changed at step 2, within a run; the steps "
        "from there to this one had what was held of the old one; what was held was dropped."
    )
