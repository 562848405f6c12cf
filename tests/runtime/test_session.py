import json
import re
import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from turbo4d.runtime.errors import OptionError, PlanError, SessionError, StaleSlotError
from turbo4d.runtime.plan import VariantKey
from turbo4d.runtime.signature import Signature

from tests.runtime.fake import (
    REGIONS,
    SIGMAS,
    SLOT_BYTES,
    denoise,
    make_args,
    plan_of,
    runner,
    signature,
)
from tests.runtime.test_plan_check import REUSE, TREE, keys_of, legal_rows
from tests.runtime.test_plan_check import plan as tree_plan
from turbo4d import session

CHAINS = {"down.chain": "reuse", "up.chain": "reuse"}
ROWS = ({}, REUSE, CHAINS, REUSE, {"up.chain": "bypass"})


def expected(plan, calls):
    """What the calls give, by the plan's rows alone: (step, args), every computed value kept."""
    slots, outputs = {}, []
    for step, args in calls:
        key = VariantKey(tuple(plan.streams["main"][step].items()), (), exact=True)
        output, values = denoise(args, key, slots)
        slots |= values
        outputs.append(output)
    return outputs


def calls_of(count, seed=0):
    return [(step, make_args(SIGMAS[step], seed=seed + step)) for step in range(count)]


def run_all(run, fast, calls, stream="main"):
    outputs = []
    for step, args in calls:
        run.step(step, stream=stream)
        outputs.append(fast(*args)[0])
    return outputs


def assert_equal(outputs, wanted):
    assert len(outputs) == len(wanted)
    assert all(torch.equal(a, b) for a, b in zip(outputs, wanted, strict=True))


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
        "weights_bytes": 4,
        "events": [],
    }
    assert report["cache_peak_bytes"] == plan.check(REGIONS).peak_bytes
    assert json.loads(json.dumps(report)) == report
    assert report["calls_by_variant"]["core.reuse"] == 2


@given(st.data(), st.integers(0, 4))
def test_any_legal_plan_holds_what_its_proof_says(data, max_age):
    """Slots of their declared sizes; each tells the step that wrote it."""
    plan = tree_plan(data.draw(legal_rows(max_age)), max_age)
    sizes = {region.name: region.slot_bytes for region in TREE}
    base = signature()
    wide = Signature(**{**vars(base), "regions": TREE, "level": None})
    read: list[tuple[int, list[int]]] = []

    class Engine:
        def __init__(self, key):
            self.key, self.reads, self.writes = key, key.reads, key.writes

        def __call__(self, args, prologue, slots_in):
            step = int(args[2][0])
            read.append((step, [int(slot[0]) for slot in slots_in]))
            outputs = [torch.full((sizes[n],), step, dtype=torch.uint8) for n in self.writes]
            return [args[1]], outputs

    from turbo4d.runtime.runner import Runner

    fast = Runner(wide, Engine, plan=plan)
    with session(fast) as run:
        run_all(run, fast, [(step, make_args(step)) for step in range(plan.steps)])
    last: dict[str, int] = {}
    for step, key in enumerate(keys_of(plan.check(TREE))):
        assert read[step] == (step, [last[name] for name in key.reads])
        last.update(dict.fromkeys(key.writes, step))
    assert run.report()["cache_peak_bytes"] == plan.check(TREE).peak_bytes
    assert run.report()["events"] == []


def test_presets_need_no_plan_but_the_levels():
    fast, engines = runner("fast")
    with session(fast, steps=8, levels=[*SIGMAS, 0.0]) as run:
        run_all(run, fast, calls_of(8))
    assert sum(engines.calls.values()) == 8
    assert run.report()["calls_by_variant"]["core.reuse"] > 0
    with session(fast, levels=SIGMAS, plan="none") as run:
        run_all(run, fast, calls_of(8))
    assert run.report()["calls_by_variant"] == {"compute": 8}
    assert [key.exact for key in engines.built if key.name == "compute"][-1] is False


def test_levels_and_steps_come_as_samplers_have_them():
    fast, _ = runner("fast")
    with session(fast, levels=torch.tensor([*SIGMAS, 0.0])) as run:
        for step, (_, args) in zip(np.arange(8), calls_of(8), strict=True):
            run.step(step)
            fast(*args)
    assert run.report()["steps"] == 8
    assert run.report()["events"] == []


def test_the_session_overrides_the_plan_and_levels_of_the_denoiser():
    fast, _ = runner("exact", levels=SIGMAS)
    with session(fast) as run:
        run_all(run, fast, calls_of(8))
    assert run.report()["calls_by_variant"] == {"compute": 8}
    with session(fast, levels=SIGMAS[:5], plan=plan_of(*ROWS)) as run:
        run_all(run, fast, calls_of(5))
    assert run.report()["plan"] == "p"


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


def test_no_call_waits_for_the_device(monkeypatch):
    waits = []
    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        original = getattr(torch.Tensor, name)

        def counted(self, *args, _name=name, _original=original, **kwargs):
            waits.append(_name)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)
    monkeypatch.setattr(torch, "equal", lambda *_: waits.append("equal"))
    fast, _ = runner("fast")
    calls = calls_of(8)
    with session(fast, levels=SIGMAS) as run:
        run_all(run, fast, calls)
    assert waits == []
    fast(*make_args())  # the same counters do notice a call without a session
    assert "cpu" in waits


def test_steps_out_of_order_are_refused():
    fast, _ = runner(plan_of({}, REUSE, REUSE))
    with session(fast, steps=3) as run:
        run_all(run, fast, calls_of(2))
        text = "run.step(1): stream 'main' is at step 1; wanted a later one, or 0 to begin anew."
        with pytest.raises(SessionError, match=f"^{re.escape(text)}$"):
            run.step(1)
        wrong: list[Any] = [3, -1, 1.0, True]
        for step in wrong:
            text = f"run.step({step}): wanted an integer from 0 to 2."
            with pytest.raises(SessionError, match=f"^{re.escape(text)}$"):
                run.step(step)


def test_an_unknown_stream_of_a_plan_is_refused():
    fast, _ = runner()
    plan = plan_of(streams={"cond": [{}], "uncond": [{}]})
    text = "plan 'p': stream 'main' is unknown; it has 'cond', 'uncond'."
    with session(fast, plan=plan) as run:
        with pytest.raises(PlanError, match=f"^{re.escape(text)}$"):
            run.step(0)
        run.step(0, stream="cond")
        fast(*make_args())
    fast, _ = runner(plan)  # here the session learns of the plan only when the denoiser is called
    with session(fast) as run:
        run.step(0)
        with pytest.raises(PlanError, match=f"^{re.escape(text)}$"):
            fast(*make_args())
        run.step(0, stream="cond")
        fast(*make_args())


def test_a_step_at_which_the_stream_does_not_run_is_refused():
    fast, _ = runner(plan_of({}, None))
    text = "step 1 of stream 'main': the plan does not run the stream at this step."
    with session(fast) as run:
        run_all(run, fast, calls_of(1))
        run.step(1)
        with pytest.raises(SessionError, match=f"^{re.escape(text)}$"):
            fast(*make_args())


def test_a_step_beyond_the_plan_is_refused():
    fast, _ = runner(plan_of({}, REUSE))
    text = "step 2 of stream 'main': the plan has 2 steps, 0 to 1."
    with session(fast) as run:
        run.step(2)
        with pytest.raises(SessionError, match=f"^{re.escape(text)}$"):
            fast(*make_args())
        run_all(run, fast, calls_of(1))


def test_two_calls_at_one_step_are_refused():
    fast, _ = runner(plan_of({}, REUSE))
    text = (
        "step 0 of stream 'main' ran already; call run.step() before each call, with a stream of "
        "its own for each guidance branch."
    )
    with session(fast) as run:
        run.step(0)
        fast(*make_args())
        with pytest.raises(SessionError, match=f"^{re.escape(text)}$"):
            fast(*make_args())


def test_a_call_before_the_first_step_is_refused():
    fast, _ = runner(plan_of({}))
    text = "session: `fast` was called before run.step(); say the step first."
    with session(fast), pytest.raises(SessionError, match=f"^{re.escape(text)}$"):
        fast(*make_args())


def test_a_session_outside_with_is_refused():
    fast, _ = runner(plan_of({}))
    run = session(fast)
    text = "run.step(): the session is not open; call it inside `with`."
    with pytest.raises(SessionError, match=f"^{re.escape(text)}$"):
        run.step(0)
    with run:
        pass
    with pytest.raises(SessionError, match=f"^{re.escape(text)}$"):
        run.step(0)
    text = "session: it was entered before; open a new one for each run."
    with pytest.raises(SessionError, match=f"^{re.escape(text)}$"), run:
        pass


def test_a_session_in_which_nothing_ran_is_refused():
    text = (
        "session: run.step() was called but no engine ran; is `fast` what torch.compile(..., "
        'backend="turbo4d") returned?'
    )
    with pytest.raises(SessionError, match=f"^{re.escape(text)}$"), session(nn.Identity()) as run:
        run.step(0)
    # Nor is anything amiss where no step was said.
    with session(nn.Identity()) as run, pytest.raises(SessionError, match=r"^run\.step\(-1\): "):
        run.step(-1)


def test_a_step_that_ran_nothing_is_reported():
    fast, _ = runner(plan_of({}, {}))
    with session(fast) as run:
        run.step(0)
        run.step(1)
        fast(*make_args())
    assert run.report()["events"] == [
        {
            "step": 0,
            "stream": "main",
            "kind": "idle-step",
            "message": "the step was said but no engine ran.",
        }
    ]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"steps": 7, "levels": SIGMAS},
            "session: the numbers of steps differ: steps 7, levels 8.",
        ),
        (
            {"steps": 8, "plan": plan_of({})},
            "session: the numbers of steps differ: steps 8, plan 1.",
        ),
        ({"steps": 0}, "session: steps is 0; wanted at least 1."),
        (
            {"streams": ["a"]},
            "session: streams are declared but no steps; give steps or levels.",
        ),
        ({"fast": 3}, "session: int is no denoiser; it is not callable."),
    ],
)
def test_options_that_do_not_fit_are_refused(options, text):
    with pytest.raises(OptionError) as caught:
        session(options.pop("fast", nn.Identity()), **options)
    assert str(caught.value) == text


def test_steps_that_differ_from_the_denoisers_own_are_refused():
    fast, _ = runner("fast", levels=SIGMAS)
    text = "session: steps is 20; the plan and levels that the denoiser was compiled with have 8."
    with session(fast, steps=20) as run:
        run.step(0)
        with pytest.raises(SessionError, match=f"^{re.escape(text)}$"):
            fast(*make_args())
