"""The prologue outside sessions: exact is never out of date, whatever can be told of the calls."""

import gc

import pytest
import torch

from tests.runtime.fake import (
    SIGMAS,
    assert_equal,
    calls_of,
    expected,
    make_args,
    plan_of,
    runner,
)

EXACT = plan_of(*[{}] * 8)


def kinds(fast):
    return [event["kind"] for event in fast.report()["events"]]


def right(fast, calls):
    """Runs the calls; each gives what it would without a prologue."""
    assert_equal([fast(*args)[0] for _, args in calls], expected(EXACT, calls))


@pytest.mark.parametrize("plan", ["exact", "fast"])
def test_a_run_computes_it_once(plan):
    fast, engines = runner(plan, hoists=True)
    right(fast, calls_of(8))
    assert engines.prologue.calls == 1
    report = fast.report()
    assert report["calls_by_variant"] == {"compute": 8, "prologue": 1}
    assert report["prologue_bytes"] == 12
    calls = calls_of(8, seed=20)
    outputs = [fast(*args)[0] for _, args in calls]
    assert_equal(outputs, expected(EXACT if plan == "exact" else fast.plan, calls))
    assert engines.prologue.calls == 2


def test_without_a_prologue_an_exact_plan_looks_at_nothing(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "cpu", None)
    monkeypatch.setattr(torch, "equal", None)
    fast, _ = runner("exact")
    for _, args in calls_of(8):
        fast(*args)
    assert kinds(fast) == []


def test_a_plan_without_exact_takes_none():
    fast, engines = runner("none", hoists=True)
    right(fast, calls_of(8))
    assert engines.prologue.built == 0
    assert kinds(fast) == []


@pytest.mark.parametrize("level", [2, None])
@pytest.mark.parametrize("plan", ["exact", "fast"])
def test_changed_conditioning_is_never_missed(plan, level):
    fast, engines = runner(plan, level=level, hoists=True)
    calls = calls_of(8)
    for _, args in calls[4:]:
        args[3] = torch.full((2,), 9.0)
    right(fast, calls)
    assert engines.prologue.calls == 2
    assert ("new-conditioning" in kinds(fast)) == (level is not None)


def test_what_changed_in_a_run_is_said():
    fast, _ = runner("exact", hoists=True)
    right(fast, calls_of(1))
    right(fast, [(1, make_args(SIGMAS[1], context=9.0))])
    assert fast.report()["events"][-1]["message"] == (
        "conditioning 'context' changed in a run; the prologue was computed anew."
    )


def test_conditioning_written_over_in_place_is_never_missed():
    fast, engines = runner("exact", level=None, hoists=True)
    args = make_args()
    for value in (1.0, 2.0, 2.0):
        args[3].fill_(value)
        right(fast, [(0, args)])
    assert engines.prologue.calls == 2


def other_weight(args):
    args[0] = args[0] * 2


def written_weight(args):
    args[0].mul_(2)


def moved_weight(args):
    args[0].data = args[0].data * 2


@pytest.mark.parametrize("change", [other_weight, written_weight, moved_weight])
@pytest.mark.parametrize("level", [2, None])
@pytest.mark.parametrize("plan", ["exact", "fast"])
def test_changed_weights_are_never_missed(plan, level, change):
    fast, engines = runner(plan, level=level, hoists=True)
    weight = torch.ones(1)
    for step, args in calls_of(8):
        args[0] = weight
        if step == 4:
            change(args)
            weight = args[0]
        right(fast, [(step, args)])
    assert engines.prologue.calls == 2


def test_a_freed_weight_at_the_same_address_is_another():
    fast, engines = runner("exact", level=None, hoists=True)
    args = make_args()
    memory = torch.ones(1)
    for value in (1.0, 2.0):
        memory = torch.from_numpy(memory.numpy())  # the same memory, another tensor of version 0
        memory.numpy().fill(value)
        args[0] = memory
        right(fast, [(0, args)])
        gc.collect()
    assert engines.prologue.calls == 2


def test_a_write_that_leaves_no_trace_is_seen_by_the_next_run():
    """As merging a LoRA into weight.data does."""
    fast, engines = runner("exact", hoists=True)
    weight = torch.ones(1)
    for _ in range(2):
        right(fast, [(step, [weight, *args[1:]]) for step, args in calls_of(8)])
        weight.data.mul_(2)
    assert engines.prologue.calls == 2


def test_so_it_is_by_a_run_that_the_plan_does_not_know():
    fast, engines = runner("fast", levels=SIGMAS, hoists=True)
    weight = torch.ones(1)
    for _ in range(2):
        calls = [(0, [weight, *make_args(level)[1:]]) for level in (50.0, 40.0)]
        right(fast, calls)
        weight.data.mul_(2)
    assert engines.prologue.calls == 2


@pytest.mark.parametrize(("level", "times"), [(2, 1), (None, 3)])
def test_weights_without_a_version_are_trusted_within_a_run_alone(level, times):
    with torch.inference_mode():
        weight = torch.ones(1)
    fast, engines = runner("exact", level=level, hoists=True)
    right(fast, [(step, [weight, *args[1:]]) for step, args in calls_of(3)])
    assert engines.prologue.calls == times


def test_two_models_in_turn_are_told_apart():
    """One graph may serve both: slots and values of one are not for the other."""
    plan = plan_of(*[{}, {"core": "reuse"}] * 4)
    fast, _ = runner(plan, hoists=True)
    weights = torch.ones(1), torch.full((1,), 3.0)
    calls = [
        (step, [weights[step >= 3], *args[1:]]) for step, args in calls_of(8)
    ]  # from step 3, in the middle of a pair, the other model
    outputs = [fast(*args)[0] for _, args in calls]
    rows = [{}, {"core": "reuse"}, {}, {}, {}, {"core": "reuse"}, {}, {"core": "reuse"}]
    assert_equal(outputs, expected(plan_of(*rows), calls))
    assert kinds(fast) == ["sync", "new-weights", "full-variant"]
    assert fast.report()["events"][1]["message"] == (
        "weight 'w' changed in a run; its slots were dropped."
    )


def test_an_exception_in_it_leaves_nothing_half_written():
    fast, engines = runner("exact", hoists=True)
    engines.prologue.fails.append(RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        fast(*make_args())
    right(fast, [(0, make_args())])
    assert engines.prologue.calls == 2
