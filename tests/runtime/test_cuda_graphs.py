"""CUDA graphs up to the library: the stand-in records and replays what CUDA would."""

from __future__ import annotations

import re

import pytest
import torch
from turbo4d.runtime import cuda_graphs, finite_watch
from turbo4d.runtime.errors import OptionError, Turbo4DError
from turbo4d.runtime.holding import Holding
from turbo4d.runtime.session import session

from tests.runtime.fake import (
    ROWS,
    WEIGHT,
    FakeEngine,
    assert_equal,
    calls_of,
    expected,
    plan_of,
    run_all,
    runner,
)
from tests.runtime.recorded_ops import WAITS, Recording, StandIn

ON = Holding(cuda_graphs=True)


@pytest.fixture
def stand_in(monkeypatch) -> StandIn:
    made = StandIn(torch.device("cpu"))
    monkeypatch.setattr(cuda_graphs, "cuda_recorder", lambda device: made)
    return made


@pytest.mark.parametrize("hoists", [False, True])
@pytest.mark.parametrize("fixed", [False, True])
def test_replays_give_what_the_engines_do(stand_in, hoists, fixed):
    plan = plan_of(*ROWS)
    fast, engines = runner(
        plan, holding=Holding(fixed_slots=fixed, cuda_graphs=True), hoists=hoists
    )
    for seed in range(4):  # other inputs, other conditioning, other slots
        calls = calls_of(len(ROWS), seed=10 * seed)
        for _, args in calls:
            args[3] = torch.full((2,), float(seed))
        with session(fast) as run:
            outputs = run_all(run, fast, calls)
        assert_equal(outputs, expected(run.plan, calls))
    kinds = len({key for key in engines.built})
    assert len(stand_in.recordings) == kinds
    # An engine runs twice: as it is, and to be recorded. Everything after that is a replay.
    assert sum(engines.calls.values()) == 2 * kinds
    assert stand_in.replays == 4 * len(ROWS) - kinds
    assert not run.report()["events"]


def test_two_streams_share_the_recordings(stand_in):
    plan = plan_of(streams={"a": ROWS, "b": ROWS})
    fast, _ = runner(plan, holding=ON, hoists=True)
    for seed in range(3):
        calls = {name: calls_of(len(ROWS), seed=seed + at) for at, name in enumerate("ab")}
        for at, name in enumerate("ab"):
            for _, args in calls[name]:
                args[3] = torch.full((2,), float(seed - at))
        found = {name: [] for name in "ab"}
        with session(fast) as run:
            for step in range(len(ROWS)):
                for name in "ab":
                    run.step(step, stream=name)
                    found[name].append(fast(*calls[name][step][1])[0])
        for name in "ab":
            assert_equal(found[name], expected(plan_of(*ROWS), calls[name]))
    assert stand_in.replays


def test_a_session_may_ask_for_it_alone(stand_in):
    fast, _ = runner(plan_of(*ROWS))
    calls = calls_of(len(ROWS))
    for asked in (False, True, True):
        with session(fast, cuda_graphs=asked) as run:
            outputs = run_all(run, fast, calls)
        assert_equal(outputs, expected(run.plan, calls))
        assert bool(stand_in.replays) == asked or not stand_in.recordings


def test_calls_without_a_session_are_replayed(stand_in):
    fast, _ = runner("exact", holding=ON, hoists=True)
    wanted, _ = runner("exact", hoists=True)
    for _, args in calls_of(6):
        assert torch.equal(fast(*args)[0], wanted(*args)[0])
    assert stand_in.replays


class Waiting(FakeEngine):
    """Reads a number back from the device."""

    def __call__(self, args, prologue, slots_in):
        float(args[1].sum())
        return super().__call__(args, prologue, slots_in)


def test_what_cannot_be_recorded_runs_as_it_is_and_says_so(stand_in, monkeypatch):
    monkeypatch.setattr("tests.runtime.fake.FakeEngine", Waiting)
    fast, _ = runner(plan_of(*ROWS), holding=ON)
    for seed in range(3):
        calls = calls_of(len(ROWS), seed=seed)
        with session(fast) as run:
            assert_equal(run_all(run, fast, calls), expected(run.plan, calls))
    told = {event["message"] for event in run.report()["events"]}
    assert (
        "engine 'core.reuse' is not replayed as a CUDA graph: RuntimeError: operation not "
        "permitted when stream is capturing; it runs as it is."
    ) in told
    assert {event["kind"] for event in run.report()["events"]} == {"cuda-graph-refused"}
    assert not stand_in.replays


def test_in_strict_mode_it_is_an_error(stand_in, monkeypatch):
    monkeypatch.setattr("tests.runtime.fake.FakeEngine", Waiting)
    fast, _ = runner(plan_of({}), holding=ON, strict=True)
    calls = calls_of(1)
    with session(fast) as run:
        run_all(run, fast, calls)
    with pytest.raises(Turbo4DError, match="is not replayed as a CUDA graph"), session(fast) as run:
        run_all(run, fast, calls)


def test_weights_that_moved_are_not_replayed(stand_in):
    fast, _ = runner(plan_of({}), holding=ON)
    for weight in (WEIGHT, WEIGHT, WEIGHT, torch.full((1,), 3.0)):
        calls = calls_of(1)
        calls[0][1][0] = weight
        with session(fast) as run:
            assert_equal(run_all(run, fast, calls), expected(run.plan, calls))
    assert stand_in.replays == 2
    [event] = run.report()["events"]
    assert "a weight lies elsewhere than when it was recorded" in str(event["message"])


def test_an_input_of_another_layout_is_recorded_anew(stand_in):
    fast, _ = runner(plan_of({}), holding=ON)
    layouts = (lambda t: t, lambda t: t.expand(2, 6)[0], lambda t: t.repeat_interleave(2)[::2])
    for layout in layouts * 3:
        calls = calls_of(1)
        calls[0][1][1] = layout(calls[0][1][1])
        calls[0][1][3] = torch.tensor([0.25]).expand(2)
        with session(fast) as run:
            assert_equal(run_all(run, fast, calls), expected(run.plan, calls))
    assert len(stand_in.recordings) == 2


def test_inference_mode_and_grad_mode_take_turns(stand_in):
    fast, _ = runner(plan_of(*ROWS), holding=ON)
    calls = calls_of(len(ROWS))
    for mode in (torch.inference_mode, torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode(), session(fast) as run:
            assert_equal(run_all(run, fast, calls), expected(run.plan, calls))


def test_a_prologue_is_not_kept_alive(stand_in):
    import weakref

    fast, _ = runner(plan_of(*ROWS), holding=ON, hoists=True)
    calls = calls_of(len(ROWS))
    for _ in range(3):
        with session(fast) as run:
            run_all(run, fast, calls)
            execution = next(iter(run._bindings.executions()))
            [lane] = execution._lanes.values()
            value = weakref.ref(lane.prologue.get(calls[0][1])[0])
    del run, execution, lane
    assert value() is None


def test_a_cpu_has_none():
    fast, _ = runner(plan_of({}), holding=ON)
    text = "cuda_graphs is on and the sample is on 'cpu', which has none; leave it off."
    with pytest.raises(OptionError, match=f"^{re.escape(text)}$"), session(fast) as run:
        run_all(run, fast, calls_of(1))


class Counting(Recording):
    """Counts what would wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.waits += func in WAITS
        return func(*args, **(kwargs or {}))


class NotYet:
    """An event that has never arrived."""

    waited = 0

    def query(self) -> bool:
        return False

    def synchronize(self) -> None:
        NotYet.waited += 1


@pytest.mark.parametrize("holding", [Holding(), ON, Holding(fixed_slots=True, cuda_graphs=True)])
def test_no_step_of_a_session_waits_for_the_device(stand_in, monkeypatch, holding):
    """Tensors without data: whoever reads a number raises. What looks for NaN never arrives."""
    monkeypatch.setattr(finite_watch, "sent_to_host", lambda bounds: (bounds, NotYet()))
    monkeypatch.setattr(NotYet, "waited", 0)
    fast, _ = runner(plan_of(*ROWS), holding=holding, hoists=True)
    for _ in range(3):
        calls = [(step, [t.to("meta") for t in args]) for step, args in calls_of(len(ROWS))]
        weight = calls[0][1][0]
        with Counting() as counting, session(fast, nonfinite="refresh") as run:
            for step, args in calls:
                args[0] = weight
                run.step(step)
                assert fast(*args)[0].shape == (6,)
            assert counting.waits == 0
            assert NotYet.waited == 0
