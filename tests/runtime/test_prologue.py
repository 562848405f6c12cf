"""The prologue in sessions: once per stream and run, and never of another conditioning."""

import pytest
import torch
from turbo4d.runtime.errors import Turbo4DError

from tests.runtime.fake import (
    REUSE,
    ROWS,
    assert_equal,
    calls_of,
    expected,
    make_args,
    plan_of,
    run_all,
    runner,
)
from turbo4d import session

# Copies of one weight and two values of conditioning, in float32.
VALUES_BYTES = 4 + 2 * 4


def with_context(calls, context):
    return [(step, [*args[:3], torch.full((2,), context)]) for step, args in calls]


def test_it_runs_once_in_a_run_and_is_built_once():
    plan = plan_of(*ROWS)
    fast, engines = runner(plan, hoists=True)
    assert engines.prologue.built == 0
    for count in (1, 2):
        with session(fast) as run:
            assert_equal(run_all(run, fast, calls_of(5)), expected(plan, calls_of(5)))
        assert engines.prologue.calls == count
        report = run.report()
        assert report["calls_by_variant"]["prologue"] == 1
        assert report["engine_calls"] == 5
        assert report["prologue_bytes"] == VALUES_BYTES
        assert report["cache_peak_bytes"] == plan.check(fast.signature.regions).peak_bytes
    assert engines.prologue.built == 1


@pytest.mark.parametrize("hoists", [True, False])
def test_plain_variants_take_none(hoists):
    fast, engines = runner(plan_of({}, REUSE, exact=not hoists), hoists=hoists)
    with session(fast) as run:
        run_all(run, fast, calls_of(2))
    assert engines.prologue.built == engines.prologue.calls == 0
    assert "prologue" not in run.report()["calls_by_variant"]
    assert run.report()["prologue_bytes"] == 0


def test_each_stream_has_its_own():
    plan, main = plan_of(streams={"a": ROWS, "b": ROWS}), plan_of(*ROWS)
    fast, engines = runner(plan, hoists=True)
    calls = {"a": calls_of(5), "b": with_context(calls_of(5, seed=9), 7.0)}
    outputs = {"a": [], "b": []}
    with session(fast) as run:
        for step in range(5):
            for stream, of in calls.items():
                outputs[stream] += run_all(run, fast, of[step : step + 1], stream)
    for stream in calls:
        assert_equal(outputs[stream], expected(main, calls[stream]))
    assert engines.prologue.calls == 2
    assert run.report()["prologue_bytes"] == 2 * VALUES_BYTES


def test_a_new_run_of_a_stream_computes_it_anew():
    """Conditioning and weights may be others by then."""
    plan = plan_of(*ROWS)
    fast, engines = runner(plan, hoists=True)
    weight = torch.ones(1)
    with session(fast) as run:
        for seed, context in ((0, 0.5), (40, 3.0)):
            calls = [
                (step, [weight, *args[1:]])
                for step, args in with_context(calls_of(5, seed), context)
            ]
            assert_equal(run_all(run, fast, calls), expected(plan, calls))
            weight.mul_(0.5)
    assert engines.prologue.calls == 2


def test_new_conditioning_computes_it_anew():
    plan = plan_of({}, {}, {}, {})
    fast, engines = runner(plan, hoists=True)
    calls = [*calls_of(2), *with_context(calls_of(4)[2:], 3.0)]
    with session(fast) as run:
        outputs = run_all(run, fast, calls[:2])
        run.new_conditioning("main")
        outputs += run_all(run, fast, calls[2:])
    assert_equal(outputs, expected(plan, calls))
    assert engines.prologue.calls == 2
    assert run.report()["events"] == []


def test_another_shape_computes_it_anew():
    fast, engines = runner(plan_of({}, {}), hoists=True)
    with session(fast) as run:
        run_all(run, fast, calls_of(1))
        w, x, t, _ = make_args()
        calls = [(1, [w, x[:4], t, torch.full((2,), 3.0)])]
        assert_equal(run_all(run, fast, calls), expected(plan_of({}, {}), calls))
    assert engines.prologue.calls == 2


def test_an_exception_in_it_leaves_nothing_half_written():
    plan = plan_of({}, REUSE, REUSE)
    fast, engines = runner(plan, hoists=True)
    engines.prologue.fails.append(RuntimeError("out of memory"))
    calls = calls_of(3)
    with session(fast) as run:
        run.step(0)
        with pytest.raises(RuntimeError, match="out of memory"):
            fast(*calls[0][1])
        assert run.report()["calls_by_variant"] == {}
        assert run.report()["prologue_bytes"] == 0
        assert_equal(run_all(run, fast, calls), expected(plan, calls))
    assert engines.prologue.calls == 2
    assert [event["kind"] for event in run.report()["events"]] == ["idle-step"]


def test_an_exception_in_an_engine_drops_it():
    plan = plan_of({}, REUSE, {})
    fast, engines = runner(plan, hoists=True)
    calls = calls_of(3)
    with session(fast) as run:
        run_all(run, fast, calls[:1])
        engines.built[next(key for key in engines.built if key.reads)].fails.append(
            RuntimeError("out of memory")
        )
        with pytest.raises(RuntimeError, match="out of memory"):
            run_all(run, fast, calls[1:2])
        assert_equal(run_all(run, fast, calls[2:]), expected(plan_of({}, {}, {}), calls)[2:])
    assert engines.prologue.calls == 2


def test_a_prologue_that_cannot_be_built_is_built_at_the_next_call():
    built = []

    def build():
        built.append(1)
        if len(built) == 1:
            raise Turbo4DError("no memory")
        return lambda args: [args[0].clone(), args[3].clone()]

    plan = plan_of({}, {})
    fast, _ = runner(plan, prologue=build)
    with session(fast) as run:
        run.step(0)
        with pytest.raises(Turbo4DError, match="no memory"):
            fast(*make_args())
        assert_equal(run_all(run, fast, calls_of(2)), expected(plan, calls_of(2)))
    assert len(built) == 2


def test_values_do_not_keep_a_graph_alive_and_views_count_once(monkeypatch):
    monkeypatch.setenv("TURBO4D_POISON", "1")
    weight = torch.ones(4, requires_grad=True)
    given = []

    def prologue(args):
        product = weight * 2
        given.append(product)
        return [product[:2], product[2:], args[0]]

    class Engine:
        def __init__(self, key):
            self.key, self.reads, self.writes = key, (), ()

        def __call__(self, args, prologue, slots_in):
            assert not any(value.requires_grad for value in prologue)
            return [args[1]], []

    from turbo4d.runtime.runner import Runner

    from tests.runtime.fake import signature

    fast = Runner(signature(), Engine, plan=plan_of({}), prologue=lambda: prologue)
    own = torch.ones(1)
    with session(fast) as run:
        run.step(0)
        fast(own, *make_args()[1:])
        assert not given[0].isnan().any()
    assert run.report()["prologue_bytes"] == 4 * 4 + 4
    assert given[0].isnan().all()  # what still read it would show it
    assert own.item() == 1  # a view of an argument is the caller's
