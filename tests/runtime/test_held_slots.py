"""However slots are held: what is read is what was written, within the plan's bounds."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from turbo4d.runtime.memory_plan import memory_plan
from turbo4d.runtime.runner import Runner
from turbo4d.runtime.signature import Signature

from tests.runtime import fake
from tests.runtime.fake import Fakes, plan_of, signature
from tests.runtime.random_plans import legal_rows, plan
from tests.runtime.test_proof_holds import SIZES, WIDE, Engine, Prologue
from tests.runtime.wide_runs import (
    REGIONS,
    TWICE,
    WAITING,
    Called,
    Copies,
    calls_of,
    wide_runner,
)
from turbo4d import session


@pytest.mark.parametrize("at", range(1, 8))
@pytest.mark.parametrize("options", [{"offload": True}, {"fixed_slots": True}, {}])
def test_what_is_lost_is_computed_anew_within_the_bounds(copies, at, options):
    made = plan_of(*WAITING)
    fast = wide_runner(made)
    with session(fast, **options) as run:
        for step, args in calls_of(made.steps):
            if step == at:
                run.new_conditioning()
            run.step(step)
            assert fast(*args)[0].isfinite().all()
    proof = made.check(REGIONS, offload="offload" in options)
    held = memory_plan(proof).arena_bytes if "fixed_slots" in options else proof.peak_bytes
    assert run.report()["cache_peak_bytes"] <= held


@pytest.mark.parametrize("rows", [WAITING, TWICE])
@pytest.mark.parametrize("skipped", [set(), {1}, {2}, {1, 2}, {4}, {5}, {2, 5}])
@pytest.mark.parametrize("options", [{"offload": True}, {"fixed_slots": True}, {}])
def test_what_only_left_out_steps_read_is_let_go(copies, rows, skipped, options):
    made = plan_of(*rows, max_age=7)
    proof = made.check(REGIONS, offload="offload" in options)
    bounds = proof.held_bytes["main"]
    held = []

    def weighed(key):
        engine = Fakes()(key)

        def call(args, prologue, slots_in):
            [execution] = run._bindings.executions()
            held.append(execution._lanes["main"].slots.size_bytes())
            return engine(args, prologue, slots_in)

        return Called(key, engine.reads, engine.writes, call)

    fast = Runner(signature(REGIONS), weighed, plan=made)
    ran = [step for step in range(made.steps) if step not in skipped]
    with session(fast, **options) as run:
        for step, args in calls_of(made.steps):
            if step in ran:
                run.step(step)
                fast(*args)
    if "fixed_slots" not in options:
        assert all(size <= bounds[step] for step, size in zip(ran, held, strict=True))


PORTED = tuple(
    replace(region, slot_forms=tuple(((size, 3), torch.uint8) for size in SIZES[region.name]))
    for region in WIDE
)


@pytest.mark.parametrize("options", [{"offload": True}, {"fixed_slots": True}])
@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(0, 4))
def test_any_legal_plan_reads_what_was_written(options, data, max_age):
    made = plan(data.draw(legal_rows(max_age)), max_age)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("turbo4d.runtime.slots.transfers_for", lambda device: Copies())
        wide = Signature(**{**vars(signature()), "regions": PORTED, "level": None})
        fast = Runner(wide, lambda key: Engine(key, seen), plan=made, prologue=Prologue)
        with session(fast, **options) as run:
            for step in range(made.steps):
                run.step(step)
                w, x, _, context = fake.make_args()
                fast(w, x, torch.full((6,), step), torch.zeros_like(context))
    proof = made.check(PORTED, offload="offload" in options)
    last = {}
    for (step, _, _, told, _, _), key in zip(seen, proof.keys["main"], strict=True):
        assert key is not None
        assert told == [(n, last[n], 0, port) for n in key.reads for port in range(len(SIZES[n]))]
        last |= dict.fromkeys(key.writes, step)
    fixed = "fixed_slots" in options and any(proof.held_bytes["main"])
    held = memory_plan(proof).arena_bytes if fixed else proof.peak_bytes
    assert run.report()["cache_peak_bytes"] == held
