import json
import re
import threading

import pytest
import torch
from turbo4d.runtime.errors import OptionError, PlanError, SessionError

from tests.runtime.fake import (
    SIGMAS,
    assert_equal,
    calls_of,
    expected,
    make_args,
    plan_of,
    runner,
)

SYNC = (
    "the noise level is read at each call, which waits for the device; "
    "open turbo4d.session and say the steps."
)


def sample(fast, seed=0, count=8, context=0.5):
    calls = [(step, make_args(SIGMAS[step], seed + step, context)) for step in range(count)]
    return calls, [fast(*args)[0] for _, args in calls]


def kinds(fast):
    return [event["kind"] for event in fast.report()["events"]]


def full_plan(count=8):
    return plan_of(*[{}] * count)


def test_the_first_run_computes_everything_and_the_second_follows_the_plan():
    fast, engines = runner("fast")
    calls, outputs = sample(fast)
    assert fast.report()["calls_by_variant"] == {"compute": 8}
    assert fast.plan is None
    assert_equal(outputs, expected(full_plan(), calls))
    for seed in (10, 20):
        calls, outputs = sample(fast, seed=seed)
        assert fast.plan is not None
        assert fast.plan.levels == pytest.approx(SIGMAS)
        assert_equal(outputs, expected(fast.plan, calls))
        assert not all(map(torch.equal, outputs, expected(full_plan(), calls)))
    report = fast.report()
    assert report["calls_by_variant"] == engines.calls
    assert report["engine_calls"] == 24
    assert report["calls_by_variant"]["core.reuse"] > 0
    assert report["plan"] == "fast"
    assert [event["message"] for event in report["events"]] == [SYNC]
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize("options", [{"levels": SIGMAS}, {"plan": plan_of({}, {"core": "reuse"})}])
def test_levels_that_are_known_need_no_first_run(options):
    fast, _ = runner(**options)
    calls, outputs = sample(fast, count=2 if "plan" in options else 8)
    assert_equal(outputs, expected(fast.plan, calls))
    assert fast.report()["calls_by_variant"]["core.reuse"] > 0


@pytest.mark.parametrize("plan", ["none", "exact"])
def test_plans_that_look_at_no_level_do_not_wait(plan, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "cpu", None)
    fast, engines = runner(plan)
    sample(fast)
    sample(fast)
    assert engines.calls == {"compute": 16}
    assert [key.exact for key in engines.built] == [plan == "exact"]
    assert kinds(fast) == []


def test_a_changed_level_is_computed_in_full_and_said():
    fast, _ = runner("fast", levels=SIGMAS)
    plan_of_runs = sample(fast) and fast.plan
    calls = calls_of(8)
    calls[3] = (3, make_args(50.0, seed=3))
    outputs = [fast(*args)[0] for _, args in calls]
    wanted = expected(plan_of_runs, calls[:3])
    assert_equal(outputs[:3], wanted)
    assert_equal(outputs[3:], expected(full_plan(), calls)[3:])
    assert fast.report()["events"][-1] == {
        "step": None,
        "stream": None,
        "kind": "unknown-level",
        "message": "noise level 50 belongs to no step of the plan; its slots were dropped.",
    }
    calls, outputs = sample(fast)
    assert_equal(outputs, expected(plan_of_runs, calls))


def test_changed_conditioning_drops_the_slots_and_is_said():
    fast, _ = runner(plan_of({}, {"core": "reuse"}, {"core": "reuse"}))
    calls = calls_of(3)
    calls[1][1][3] = torch.full((2,), 9.0)
    calls[2][1][3] = torch.full((2,), 9.0)
    outputs = [fast(*args)[0] for _, args in calls]
    assert_equal(outputs, expected(plan_of({}, {}, {"core": "reuse"}), calls))
    events = [e for e in fast.report()["events"] if e["kind"] != "sync"]
    assert [event["kind"] for event in events] == ["new-conditioning", "full-variant"]
    assert events[0]["step"] == 1
    assert events[0]["message"] == (
        "conditioning 'context' changed in a run; its slots were dropped."
    )


def test_conditioning_that_is_written_over_in_place_has_changed():
    fast, _ = runner(plan_of({}, {"core": "reuse"}))
    args = make_args(SIGMAS[0])
    fast(*args)
    args[2].fill_(SIGMAS[1])
    args[3].fill_(9.0)
    fast(*args)
    assert kinds(fast) == ["sync", "new-conditioning", "full-variant"]


def test_new_conditioning_for_a_new_run_is_no_event():
    fast, _ = runner("fast", levels=SIGMAS)
    for context in (0.5, 0.7):
        calls, outputs = sample(fast, context=context)
        assert_equal(outputs, expected(fast.plan, calls))
    assert kinds(fast) == ["sync"]


def test_equal_conditioning_that_is_rebuilt_at_each_call_is_the_same():
    fast, _ = runner(plan_of({}, {"core": "reuse"}))
    sample(fast, count=2)
    assert kinds(fast) == ["sync"]


def test_without_a_level_everything_is_computed_and_said_once():
    fast, engines = runner("fast", level=None)
    sample(fast)
    assert engines.calls == {"compute": 8}
    assert [event["message"] for event in fast.report()["events"]] == [
        "no input is the noise level, so no step can be told (a block by itself has none); "
        "everything is computed."
    ]


def test_several_levels_in_one_call_are_computed_in_full():
    fast, engines = runner("fast", levels=SIGMAS)
    args = make_args()
    args[2][0] = 2.0
    fast(*args)
    assert engines.calls == {"compute": 1}
    assert kinds(fast) == ["sync", "mixed-levels"]


def test_strict_makes_each_departure_an_error():
    fast, _ = runner("fast", levels=SIGMAS, strict=True)
    text = "strict: noise level 50 belongs to no step of the plan."
    with pytest.raises(SessionError, match=f"^{re.escape(text)}$"):
        fast(*make_args(50.0))
    fast, _ = runner(plan_of({}, {"core": "reuse"}), strict=True)
    fast(*make_args(SIGMAS[0]))
    text = "strict: conditioning 'context' changed in a run."
    with pytest.raises(SessionError, match=f"^{re.escape(text)}$"):
        fast(*make_args(SIGMAS[1], context=9.0))


def test_threads_learn_apart():
    fast, engines = runner("fast")
    sample(fast)
    thread = threading.Thread(target=sample, args=(fast,))
    thread.start()
    thread.join()
    assert engines.calls == {"compute": 16}
    assert fast.report()["engine_calls"] == 8


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (
            {"use": ("level",)},
            OptionError,
            "kind 'level': the model has no such region; it has chain, core.",
        ),
        (
            {"plan": plan_of({}, model="xyz")},
            PlanError,
            "plan 'p' is for model 'xyz'; this one is 'abc'. Make a plan for this model.",
        ),
        (
            {"levels": (1.0, 2.0)},
            PlanError,
            "levels: step 1 has 2 after 1; noise levels must fall from step to step.",
        ),
        (
            {"plan": plan_of({}), "levels": SIGMAS},
            PlanError,
            "plan 'p' is for 1 steps; this run has 8. Make a plan for this schedule.",
        ),
        (
            {"plan": "fats"},
            OptionError,
            "plan: 'fats' is no preset (balanced, exact, fast, none, quality) and no file.",
        ),
    ],
)
def test_what_no_call_could_follow_is_refused_at_once(options, error, text):
    with pytest.raises(error) as caught:
        runner(**options)
    assert str(caught.value) == text


def test_runs_of_two_lengths_in_turn_each_follow_a_plan():
    """As a service that samples with as many steps as it is asked for."""
    fast, _ = runner("fast")
    shorter = SIGMAS[::2]
    outputs = {}
    for levels in (SIGMAS, shorter) * 3:
        args = [make_args(level, seed) for seed, level in enumerate(levels)]
        outputs[levels] = [fast(*each)[0] for each in args]
    for levels in (SIGMAS, shorter):
        alone, _ = runner("fast", levels=levels)
        args = [make_args(level, seed) for seed, level in enumerate(levels)]
        wanted = [alone(*each)[0] for each in args]
        # The run shows at its second step which it is: that step finds no slots, and computes.
        assert_equal(outputs[levels][:1], wanted[:1])
        assert_equal(outputs[levels][1:2], expected(full_plan(), [(1, args[1])]))
    assert kinds(fast).count("unknown-level") + kinds(fast).count("skipped-step") == 1
