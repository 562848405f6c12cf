"""Guidance branches that are called one by one are streams of a run without a session."""

from dataclasses import replace

import pytest
from turbo4d.runtime.guidance_branches import GuidanceBranches

from tests.runtime.fake import (
    SIGMAS,
    assert_equal,
    expected,
    make_args,
    plan_of,
    runner,
    signature,
)

CONTEXTS = (0.0, 1.0)


def tell(branches, *calls):
    """Which branch each (context, sample) of one level is."""
    told = [
        branches.tell(make_args(1.0, seed=seed, context=context), repeated=at > 0)
        for at, (context, seed) in enumerate(calls)
    ]
    return [each.branch for each in told], [each.change for each in told]


def test_one_sample_with_two_conditionings_is_two_branches():
    branches = GuidanceBranches(signature())
    for seed in range(3):
        assert tell(branches, (0.0, seed), (1.0, seed)) == ([0, 1], [None, None])


def test_branches_keep_their_numbers_in_another_order_and_where_one_is_left_out():
    branches = GuidanceBranches(signature())
    tell(branches, (0.0, 1), (1.0, 1))
    assert tell(branches, (1.0, 2), (0.0, 2))[0] == [1, 0]
    assert tell(branches, (1.0, 3))[0] == [1]
    assert tell(branches, (0.0, 4))[0] == [0]


def test_another_sample_at_a_level_is_no_branch():
    """Windows of frames, or the second half of Heun's step: slots of one are not for the other."""
    branches = GuidanceBranches(signature())
    assert tell(branches, (0.0, 1), (0.0, 2))[0] == [0, None]
    assert tell(branches, (0.0, 3), (1.0, 4))[0] == [0, None]


def test_the_same_call_again_is_no_branch():
    assert tell(GuidanceBranches(signature()), (0.0, 1), (0.0, 1))[0] == [0, None]


def test_conditioning_that_changed_is_told_of_its_branch():
    branches = GuidanceBranches(signature())
    tell(branches, (0.0, 1), (1.0, 1))
    told, changes = tell(branches, (0.0, 2), (5.0, 2))
    assert told == [0, 1]
    assert [change and change.what for change in changes] == [None, "conditioning 'context'"]
    assert tell(branches, (0.0, 3), (5.0, 3)) == ([0, 1], [None, None])


def test_other_weights_at_a_level_are_no_branch():
    branches = GuidanceBranches(signature())
    args = make_args(1.0)
    assert branches.tell(args, repeated=False).branch == 0
    args[0], args[3] = args[0] * 2, args[3] + 1
    assert branches.tell(args, repeated=True).branch is None


def test_a_sample_that_is_written_over_is_another():
    branches = GuidanceBranches(signature())
    args = make_args(1.0)
    branches.tell(args, repeated=False)
    args[1].add_(1)
    args[3] = args[3] + 1
    assert branches.tell(args, repeated=True).branch is None


def test_there_are_four_branches_at_most():
    calls = [(float(context), 1) for context in range(5)]
    assert tell(GuidanceBranches(signature()), *calls)[0] == [0, 1, 2, 3, None]


def guided(fast, seed=0, contexts=CONTEXTS):
    """A run with each branch in turn: per branch its calls and outputs."""
    calls, outputs = {c: [] for c in contexts}, {c: [] for c in contexts}
    for step, level in enumerate(SIGMAS):
        for context in contexts:
            args = make_args(level, seed + step, context)
            calls[context].append((step, args))
            outputs[context].append(fast(*args)[0])
    return calls, outputs


@pytest.mark.parametrize("hoists", [False, True])
def test_the_second_run_follows_the_plan_in_every_branch(hoists):
    fast, engines = runner("fast", hoists=hoists)
    for run in range(3):
        calls, outputs = guided(fast, seed=10 * run)
        plan = fast.plan if run else plan_of(*[{}] * 8)
        for context in CONTEXTS:
            assert_equal(outputs[context], expected(plan, calls[context]))
    report = fast.report()
    assert report["calls_by_variant"]["core.reuse"] > 0
    assert [event["kind"] for event in report["events"]] == ["sync"]
    assert report["engine_calls"] == 3 * 16
    assert engines.prologue.calls == (3 * 2 if hoists else 0)
    assert fast.plan is not None
    assert [*fast.plan.streams] == ["main", "branch-1"]


def test_an_exact_plan_computes_the_prologue_once_for_each_branch():
    fast, engines = runner("exact", hoists=True)
    calls, outputs = guided(fast)
    for context in CONTEXTS:
        assert_equal(outputs[context], expected(plan_of(*[{}] * 8), calls[context]))
    assert engines.prologue.calls == 2
    assert fast.report()["prologue_bytes"] == 2 * 12


def test_a_branch_that_is_called_at_some_steps_alone_is_never_wrong():
    """As where guidance is on within an interval of noise levels."""
    fast, _ = runner("fast")
    full = plan_of(*[{}] * 8)
    for run in range(3):
        for step, level in enumerate(SIGMAS):
            for context in CONTEXTS[: 2 if step in (3, 4, 5) else 1]:
                args = make_args(level, 10 * run + step, context)
                output = fast(*args)[0]
                if context == 1.0 and step == 3:  # nothing of an earlier run is left
                    assert_equal([output], expected(full, [(step, args)]))
    assert "new-conditioning" not in {event["kind"] for event in fast.report()["events"]}


def test_the_branches_of_a_plan_are_its_streams():
    rows = {"uncond": ({}, {"core": "reuse"}), "cond": ({}, {})}
    fast, engines = runner(plan_of(streams=rows))
    for step in range(2):
        for context in CONTEXTS:
            fast(*make_args(SIGMAS[step], step, context))
    assert engines.calls == {"compute": 2, "compute+core.w": 1, "core.reuse": 1}


def test_a_branch_that_the_plan_has_no_stream_for_is_computed_in_full():
    fast, engines = runner(plan_of({}, {"core": "reuse"}))
    for step in range(2):
        for context in CONTEXTS:
            fast(*make_args(SIGMAS[step], step, context))
    assert engines.calls == {"compute": 2, "compute+core.w": 1, "core.reuse": 1}
    assert fast.report()["events"][-1]["message"] == (
        "guidance branch 1 has no row at step 0 of plan 'p', which has stream 'main'; such calls "
        "are computed in full."
    )


def test_windows_of_frames_are_computed_in_full():
    fast, engines = runner("fast")
    for _ in range(3):
        for step, level in enumerate(SIGMAS):
            for window in range(2):
                fast(*make_args(level, seed=10 * step + window))
    assert engines.calls == {"compute": 48}
    assert {event["kind"] for event in fast.report()["events"]} == {"sync", "repeated-level"}


def test_the_second_sample_of_a_level_has_branches_of_its_own():
    branches = GuidanceBranches(signature())
    for base in (0, 10):
        told = [
            branches.tell(make_args(1.0, base + seed, context), repeated=at > 0, twice=True).branch
            for at, (context, seed) in enumerate([(0.0, 1), (1.0, 1), (0.0, 2), (1.0, 2), (0.0, 3)])
        ]
        assert told == [0, 1, 4, 5, None]


@pytest.mark.parametrize("contexts", [CONTEXTS[:1], CONTEXTS])
def test_heuns_method_follows_the_plan_on_slots_of_each_half(contexts):
    fast, engines = runner("fast")
    calls = {}
    for run in range(3):
        calls = {}
        for step, level in enumerate(SIGMAS):
            for half in range(1 + (step > 0)):
                for context in contexts:
                    args = make_args(level, 100 * run + 10 * step + half, context)
                    calls.setdefault((half, context), []).append((step, args, fast(*args)[0]))
    assert fast.plan is not None
    for (half, context), made in calls.items():
        name = f"branch-{contexts.index(context) + 4 * half}"
        rows = fast.plan.streams["main" if name == "branch-0" else name]
        own = replace(fast.plan, streams={"main": rows})
        outputs = [output for _, _, output in made]
        assert_equal(outputs, expected(own, [(step, args) for step, args, _ in made]))
    assert engines.calls["core.reuse"] > 0
    assert {event["kind"] for event in fast.report()["events"]} == {"sync"}
