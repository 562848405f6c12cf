"""TURBO4D_DEBUG=1: a session compares what it otherwise takes on trust."""

import re

import pytest
import torch
from turbo4d.runtime.errors import SessionError
from turbo4d.runtime.runner import Runner
from turbo4d.runtime.signature import Signature

from tests.runtime.fake import (
    REUSE,
    Fakes,
    calls_of,
    make_args,
    plan_of,
    run_all,
    runner,
    signature,
)
from turbo4d import session


@pytest.fixture(autouse=True)
def _debug(monkeypatch):
    monkeypatch.setenv("TURBO4D_DEBUG", "1")


def changed():
    return [*calls_of(3)[:2], (2, make_args(1.0, context=9.0))]


def test_conditioning_that_changed_is_named():
    fast, _ = runner(plan_of(streams={"a": [{}, {}, REUSE]}), hoists=True)
    text = (
        "step 2 of stream 'a': conditioning 'context' changed since the run's first call; a "
        "session takes it to stay the same. Call run.new_conditioning() before the step, or "
        "compile with invariant={'context': False} where it changes at every step."
    )
    with session(fast) as run, pytest.raises(SessionError, match=f"^{re.escape(text)}$"):
        run_all(run, fast, changed(), "a")


def test_it_is_compared_where_nothing_is_hoisted_and_nothing_reused():
    fast, _ = runner("none", levels=(3.0, 2.0, 1.0))
    with session(fast) as run, pytest.raises(SessionError, match="conditioning 'context' changed"):
        run_all(run, fast, changed())


def test_in_place_writes_are_seen():
    fast, _ = runner(plan_of({}, REUSE))
    args = make_args()
    with session(fast) as run:
        run.step(0)
        fast(*args)
        args[3].add_(1)
        run.step(1)
        with pytest.raises(SessionError, match="conditioning 'context' changed"):
            fast(*args)
        assert run.report()["engine_calls"] == 1


def test_what_is_said_or_a_new_run_is_no_error():
    fast, _ = runner(plan_of({}, {}, REUSE))
    with session(fast) as run:
        for context in (0.5, 2.0):
            run_all(run, fast, [(n, make_args(1.0, n, context)) for n in range(3)])
        run_all(run, fast, [(0, make_args())])
        run.new_conditioning()
        run_all(run, fast, [(1, make_args(1.0, context=7.0))])


def test_each_stream_has_its_own_conditioning():
    fast, _ = runner(plan_of(streams={"a": [{}, {}], "b": [{}, {}]}))
    with session(fast) as run:
        for step in range(2):
            for stream, context in (("a", 0.0), ("b", 1.0)):
                run_all(run, fast, [(step, make_args(1.0, step, context))], stream)


def test_weights_that_were_written_to_are_seen():
    fast, _ = runner(plan_of({}, REUSE))
    w = torch.ones(1)
    with session(fast) as run:
        run.step(0)
        fast(w, *make_args()[1:])
        w.mul_(2)
        run.step(1)
        with pytest.raises(SessionError, match=r"weight 'w' changed .* before the step\.$"):
            fast(w, *make_args()[1:])


def channels(*spans):
    """The denoiser, its sample [1, 6], some of whose channels are declared to stay the same."""
    wide = Signature(**{**vars(signature()), "invariant": {1: spans}})
    return Runner(wide, Fakes(), plan=plan_of({}, {}))


def test_channels_declared_invariant_are_compared_and_the_others_not():
    fast = channels((4, 6))
    text = (
        "step 1 of stream 'main': channels 4:6 of input 'x' changed since the run's first "
        "call; a session takes it to stay the same. Call run.new_conditioning() before the "
        "step, or compile without them in invariant['x'] where they change at every step."
    )
    x = torch.zeros(1, 6)
    w, _, t, context = make_args()
    for changes, column in ((False, 3), (True, 4)):
        with session(fast) as run:
            run.step(0)
            fast(w, x, t, context)
            run.step(1)
            x = x.clone()
            x[:, column] += 1
            if changes:
                with pytest.raises(SessionError, match=f"^{re.escape(text)}$"):
                    fast(w, x, t, context)
            else:
                fast(w, x, t, context)


def test_without_it_a_change_is_an_event_and_weights_are_not_compared(monkeypatch):
    monkeypatch.delenv("TURBO4D_DEBUG")
    fast, _ = runner(plan_of({}, {}, REUSE), hoists=True)
    with session(fast) as run:
        run_all(run, fast, changed())
        kinds = [event["kind"] for event in run.report()["events"]]
        assert kinds == ["new-conditioning", "full-variant"]
        w = torch.ones(1)
        for step in range(2):
            run.step(step)
            fast(w.mul_(2), *make_args()[1:])
        assert len(run.report()["events"]) == 2


def test_a_bare_run_compares_declared_channels_always(monkeypatch):
    monkeypatch.delenv("TURBO4D_DEBUG")
    wide = Signature(**{**vars(signature()), "invariant": {1: ((4, 6),)}})
    fast = Runner(wide, Fakes(), plan=plan_of({}, REUSE))
    w, _, t, context = make_args(700.0)
    fast(w, torch.zeros(1, 6), t, context)
    fast(w, torch.ones(1, 6), torch.full_like(t, 500.0), context)
    assert [event["kind"] for event in fast.report()["events"]] == [
        "sync", "new-conditioning", "full-variant",
    ]  # fmt: skip
    assert fast.report()["events"][1]["message"] == (
        "channels 4:6 of input 'x' changed in a run; its slots were dropped."
    )
