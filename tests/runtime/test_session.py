import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from turbo4d.runtime.errors import OptionError, PlanError, SessionError

from tests.runtime.fake import REUSE, ROWS, SIGMAS, calls_of, make_args, plan_of, run_all, runner
from turbo4d import session


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


DDIM = tuple(float(timestep) for timestep in range(950, -1, -50))  # as diffusers spaces 20 steps


@pytest.mark.parametrize("preset", ["none", "exact", "fast"])
def test_a_schedule_of_timesteps_keeps_its_last_step_at_0(preset: str) -> None:
    fast, _ = runner(preset)
    calls = [(step, make_args(level, seed=step)) for step, level in enumerate(DDIM)]
    with session(fast, levels=DDIM) as run:
        run_all(run, fast, calls)
        assert run.plan is not None
        assert run.plan.levels == DDIM
    assert run.report()["steps"] == 20
    assert run.report()["events"] == []


def test_a_schedule_of_timesteps_is_learnt_to_its_end_without_a_session() -> None:
    fast, _ = runner("fast")
    for _ in range(2):
        for step, level in enumerate(DDIM):
            fast(*make_args(level, seed=step))
    assert fast.plan is not None
    assert fast.plan.levels == DDIM
    assert {event["kind"] for event in fast.report()["events"]} == {"sync"}


def test_a_plan_tells_whether_the_closing_zero_is_a_step() -> None:
    rows = [{}, *[REUSE] * 4] * 4
    whole = plan_of(*rows, levels=DDIM, level_unit="timestep")
    ended = plan_of(*rows[:-1], levels=DDIM[:-1], level_unit="timestep")
    for plan in (whole, ended):
        fast, _ = runner(plan)
        with session(fast, levels=DDIM, plan=plan) as run:
            assert run.steps == plan.steps
            calls = [(step, make_args(level)) for step, level in enumerate(plan.levels)]
            run_all(run, fast, calls)
        assert run.report()["events"] == []


def test_the_session_overrides_the_plan_and_levels_of_the_denoiser():
    fast, _ = runner("exact", levels=SIGMAS)
    with session(fast) as run:
        run_all(run, fast, calls_of(8))
    assert run.report()["calls_by_variant"] == {"compute": 8}
    with session(fast, levels=SIGMAS[:5], plan=plan_of(*ROWS)) as run:
        run_all(run, fast, calls_of(5))
    assert run.report()["plan"] == "p"


def test_levels_without_a_unit_are_in_that_of_the_denoisers_plan():
    fast, _ = runner(plan_of(*ROWS))
    with session(fast, levels=SIGMAS[:5]) as run:
        run_all(run, fast, calls_of(5))
    assert run.report()["plan"] == "p"


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
        "its own for each guidance branch, and for the second call of a solver that makes two."
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


@pytest.mark.parametrize(("steps", "kinds"), [(2, ["nothing-reused"]), (8, [])])
def test_a_preset_that_reuses_nothing_says_so(steps, kinds):
    fast, _ = runner("fast", levels=SIGMAS[::7] if steps == 2 else SIGMAS)
    calls = calls_of(8)[::7] if steps == 2 else calls_of(8)
    with session(fast) as run:
        for step, (_, args) in enumerate(calls):
            run.step(step)
            fast(*args)
    events = run.report()["events"]
    assert [event["kind"] for event in events] == kinds
    if kinds:
        assert events[0]["message"] == (
            "preset 'fast' reuses nothing in 2 steps: too much of the run passes between one and "
            "the next. Take a preset that reuses more, or calibrate a plan."
        )
