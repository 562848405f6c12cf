import contextvars
import re
import threading

import pytest
import torch
from torch import nn
from turbo4d.runtime.errors import SessionError
from turbo4d.runtime.runner import Runner

from tests.runtime.fake import (
    REGIONS,
    REUSE,
    ROWS,
    SIGMAS,
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


def test_streams_do_not_share_slots():
    plan = plan_of(streams={"uncond": ROWS, "cond": ROWS})
    main = plan_of(*ROWS)
    fast, _ = runner(plan)
    calls = {"uncond": calls_of(5), "cond": calls_of(5, seed=100)}
    outputs = {"uncond": [], "cond": []}
    with session(fast) as run:
        for step in range(5):
            for stream in calls:
                outputs[stream] += run_all(run, fast, calls[stream][step : step + 1], stream)
    for stream in calls:
        assert_equal(outputs[stream], expected(main, calls[stream]))
    assert run.report()["cache_peak_bytes"] <= plan.check(REGIONS).peak_bytes


def test_streams_that_alternate_are_planned_apart():
    fast, _ = runner("fast")
    declared = {"backward": range(0, 8, 2), "forward": range(1, 8, 2)}
    with session(fast, levels=SIGMAS, streams=declared) as run:
        for step, args in calls_of(8):
            run.step(step, stream="backward" if step % 2 == 0 else "forward")
            fast(*args)
        text = "run.step(1, stream='main'): the session has streams 'backward', 'forward'."
        with pytest.raises(SessionError, match=f"^{re.escape(text)}$"):
            run.step(1)
    assert run.report()["events"] == []
    assert run.report()["calls_by_variant"]["core.reuse"] > 0


def test_a_second_run_reads_nothing_of_the_first():
    plan = plan_of(*ROWS)
    fast, _ = runner(plan)
    with session(fast) as run:
        run_all(run, fast, calls_of(3))
        again = calls_of(5, seed=50)
        assert_equal(run_all(run, fast, again), expected(plan, again))
    assert run.report()["events"] == []


def test_a_new_run_drops_the_slots_even_if_its_first_step_is_left_out():
    fast, _ = runner(plan_of({}, REUSE, REUSE))
    with session(fast) as run:
        run_all(run, fast, calls_of(2))
        run.step(0)
        run_all(run, fast, calls_of(2)[1:])
    kinds = [event["kind"] for event in run.report()["events"]]
    assert kinds == ["idle-step", "full-variant"]


def test_sessions_do_not_share_slots():
    fast, _ = runner(plan_of(*ROWS))
    with session(fast) as run:
        run_all(run, fast, calls_of(1))
    with session(fast) as run:
        run_all(run, fast, calls_of(2)[1:])
    assert [event["kind"] for event in run.report()["events"]] == ["full-variant"]


class Waiting(nn.Module):
    """A module whose runner is known to the test."""

    def __init__(self, fast, weight):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.fast = fast

    def forward(self, args):
        return self.fast(self.weight, *args[1:])


def test_two_models_of_one_runner_do_not_share_slots():
    plan = plan_of({}, REUSE)
    fast, _ = runner(plan)
    one, other = Waiting(fast, torch.ones(1)), Waiting(fast, torch.full((1,), 3.0))
    with session(one) as first, session(other) as second:
        for step, args in calls_of(2):
            first.step(step)
            second.step(step)
            outputs = [model(args)[0] for model in (one, other)]
    inputs = [[[m.weight.data, *args[1:]] for _, args in calls_of(2)] for m in (one, other)]
    for output, args in zip(outputs, inputs, strict=True):
        assert torch.equal(output, expected(plan, [*enumerate(args)])[1])
    assert first.report()["engine_calls"] == second.report()["engine_calls"] == 2


def test_a_model_that_is_not_the_sessions_runs_as_without_one():
    fast, _ = runner(plan_of({}, REUSE))
    mine, foreign = Waiting(fast, torch.ones(1)), Waiting(fast, torch.ones(1))
    with session(mine) as run:
        run.step(0)
        foreign(make_args())
        mine(make_args())
    assert run.report()["engine_calls"] == 1
    assert fast.report()["engine_calls"] == 1


def test_weights_that_are_wrapped_anew_at_each_call_are_the_same_model():
    fast, _ = runner(plan_of({}, REUSE))
    model = Waiting(fast, torch.ones(1))
    with session(model) as run:
        for step, args in calls_of(2):
            run.step(step)
            fast(model.weight.detach(), *args[1:])
    assert run.report()["calls_by_variant"] == {"compute+core.w": 1, "core.reuse": 1}


def test_two_threads_do_not_mix():
    plan = plan_of(*ROWS)
    fast, _ = runner(plan)
    barrier = threading.Barrier(2, timeout=30)
    results: dict[int, list[torch.Tensor]] = {}
    reports = {}

    def sample(seed):
        with session(fast) as run:
            outputs = []
            for call in calls_of(5, seed=seed):
                barrier.wait()
                outputs += run_all(run, fast, [call])
        results[seed], reports[seed] = outputs, run.report()

    threads = [threading.Thread(target=sample, args=(seed,)) for seed in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, outputs in results.items():
        assert_equal(outputs, expected(plan, calls_of(5, seed=seed)))
        assert reports[seed]["engine_calls"] == 5


def stepwise(fast, calls, outputs):
    """Two streams of one session; yields after each step."""
    with session(fast) as run:
        for step in range(5):
            for stream, of in calls.items():
                outputs[stream] += run_all(run, fast, of[step : step + 1], stream)
            yield step
    assert run.report()["events"] == []


@pytest.mark.parametrize("hoists", [True, False])
def test_two_sessions_of_two_streams_in_turn_give_what_they_give_alone(monkeypatch, hoists):
    """With poison: a slot or a value of the prologue that is let go too soon shows as NaN."""
    monkeypatch.setenv("TURBO4D_POISON", "1")
    plan, main = plan_of(streams={"a": ROWS, "b": ROWS}), plan_of(*ROWS)
    fast, _ = runner(plan, hoists=hoists)
    calls = [
        {name: [(n, make_args(SIGMAS[n], seed + n, context)) for n in range(5)]}
        | {other: [(n, make_args(SIGMAS[n], seed + 50 + n, -context)) for n in range(5)]}
        for name, other, seed, context in (("a", "b", 0, 0.5), ("b", "a", 200, 2.0))
    ]
    outputs = [{"a": [], "b": []}, {"a": [], "b": []}]
    runs = [stepwise(fast, c, o) for c, o in zip(calls, outputs, strict=True)]
    contexts = [contextvars.copy_context() for _ in runs]
    for _ in range(6):
        for context, run in zip(contexts, runs, strict=True):
            context.run(next, run, None)
    for of, got in zip(calls, outputs, strict=True):
        for stream in of:
            assert_equal(got[stream], expected(main, of[stream]))


def test_outputs_outlive_the_slots(monkeypatch):
    """Poison would show where an output shared memory with a slot."""
    monkeypatch.setenv("TURBO4D_POISON", "1")
    fast, _ = runner(plan_of(*ROWS), hoists=True)
    with session(fast) as run:
        outputs = run_all(run, fast, calls_of(5))
    assert_equal(outputs, expected(plan_of(*ROWS), calls_of(5)))


def test_the_runtime_copies_nothing():
    """What an engine is given is what was passed or written; what it gives is what is returned."""
    given, made = [], []

    class Engine:
        def __init__(self, key):
            self.key, self.reads, self.writes = key, key.reads * 2, key.writes * 2

        def __call__(self, args, prologue, slots_in):
            given.append([tensor.data_ptr() for tensor in (*args, *slots_in)])
            made.append([torch.zeros(3) for _ in ("output", *self.writes)])
            return made[-1][:1], made[-1][1:]

    fast = Runner(signature(), Engine, plan=plan_of({}, REUSE, REUSE))
    calls = calls_of(3)
    with session(fast) as run:
        outputs = run_all(run, fast, calls)
    assert all(output is tensors[0] for output, tensors in zip(outputs, made, strict=True))
    slots = [tensor.data_ptr() for tensor in made[0][1:]]
    assert len(slots) == 2
    for step, (_, args) in enumerate(calls):
        assert given[step] == [tensor.data_ptr() for tensor in args] + (slots if step else [])
