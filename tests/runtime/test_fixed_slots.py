"""Slots that are stored smaller, or that keep their addresses."""

import re
from dataclasses import replace

import pytest
import torch
from turbo4d.runtime.errors import MemoryPlanError, PlanError
from turbo4d.runtime.memory_plan import memory_plan
from turbo4d.runtime.runner import Runner
from turbo4d.runtime.slot_storage import stored_bytes

from tests.runtime import fake
from tests.runtime.fake import CHAINS, REUSE, SIGMAS, Fakes, plan_of, signature
from tests.runtime.wide_runs import (
    REGIONS,
    SIZE,
    WAITING,
    Spy,
    calls_of,
    expected,
    run_all,
    wide_runner,
)
from turbo4d import session

NEXT = {"core": "reuse(1)"}


@pytest.mark.parametrize("poison", ["0", "1"])
@pytest.mark.parametrize("storage", ["float16", "float8", "int8"])
@pytest.mark.parametrize("fixed", [False, True])
def test_what_is_read_went_through_its_storage(monkeypatch, storage, fixed, poison):
    monkeypatch.setenv("TURBO4D_POISON", poison)
    made = plan_of(*WAITING, storage={"core": storage, "up.chain": storage})
    outputs, report = run_all(wide_runner(made), made, fixed_slots=fixed)
    assert all(map(torch.equal, outputs, expected(made)))
    proof, plain = made.check(REGIONS), replace(made, storage={}).check(REGIONS)
    assert proof.slot_bytes["core"] == stored_bytes((SIZE,), torch.float32, storage)
    assert proof.peak_bytes < plain.peak_bytes
    held = memory_plan(proof).arena_bytes if fixed else proof.peak_bytes
    assert report["cache_peak_bytes"] == held


def test_a_bound_that_binds_is_kept_by_a_smaller_storage():
    made = plan_of(*WAITING, max_cache_bytes=4 * SIZE)
    with pytest.raises(PlanError, match="max_cache_bytes allows 2560"):
        wide_runner(made)
    smaller = replace(made, storage={name: "int8" for name in ("core", "up.chain", "down.chain")})
    assert run_all(wide_runner(smaller), smaller)[1]["cache_peak_bytes"] <= 4 * SIZE


@pytest.mark.parametrize("storage", ["compute", "int8"])
@pytest.mark.parametrize("rows", [WAITING, ({}, {}, NEXT, REUSE, {}, NEXT, REUSE)])
def test_fixed_slots_are_read_at_one_address(rows, storage):
    made = plan_of(*rows, storage={"core": storage})
    free, fixed = {}, {}
    wanted, _ = run_all(wide_runner(made, free), made, runs=2)
    outputs, report = run_all(wide_runner(made, fixed), made, runs=2, fixed_slots=True)
    assert all(map(torch.equal, outputs, wanted))
    assert {len(addresses) for addresses in fixed.values()} == {1}
    assert any(len(addresses) > 1 for addresses in free.values())
    assert report["cache_peak_bytes"] == memory_plan(made.check(REGIONS)).arena_bytes


def test_fixed_slots_beyond_the_bound_are_refused_before_anything_runs():
    rows = [{}, CHAINS, {}, REUSE]
    made = plan_of(*rows, max_cache_bytes=2 * 4 * SIZE, levels=SIGMAS[:4])
    run_all(wide_runner(made), made, fixed_slots=True)
    odd = replace(made, storage={"core": "int8"}, max_cache_bytes=2 * 4 * SIZE)
    run_all(wide_runner(odd), odd, fixed_slots=True)
    small = [replace(region, slot_bytes=40, slot_forms=()) for region in REGIONS]
    seen: dict[str, set[int]] = {}
    fast = Runner(
        signature(tuple(small)),
        lambda key: Spy(Fakes()(key), seen),
        plan=plan_of(*rows, max_cache_bytes=511),
    )
    with session(fast, fixed_slots=True) as run:
        run.step(0)
        with pytest.raises(PlanError, match="fixed slots take 512 bytes"):
            fast(*fake.make_args())
    assert run.report()["engine_calls"] == 0


@pytest.mark.parametrize("fixed", [False, True])
def test_an_engine_whose_slots_are_larger_than_planned_is_an_error(fixed):
    made = plan_of({}, REUSE)
    small = tuple(replace(region, slot_bytes=24, slot_forms=()) for region in REGIONS)
    fast = Runner(signature(small), Fakes(), plan=made)
    text = (
        "slot 'core': its value of [2560] bytes does not fit its 1 places of [256], of which 0 are "
        "taken. The engine's slots are larger than those it was planned for."
        if fixed
        else "step 0 of stream 'main': its slots hold 2560 bytes; the plan's proof says 24. The "
        "engine's slots are larger than those it was planned for."
    )
    with session(fast, fixed_slots=fixed) as run:
        run.step(0)
        with pytest.raises(MemoryPlanError, match=f"^{re.escape(text)}$"):
            fast(*next(calls_of(1))[1])


def test_an_adaptive_run_has_fixed_slots_too():
    seen = {}
    made = plan_of(*[{}, REUSE] * 4, levels=SIGMAS)
    _, report = run_all(wide_runner(made, seen), made, runs=2, adaptive=True, fixed_slots=True)
    assert len(seen["core"]) == 1
    assert report["cache_peak_bytes"] == 4 * SIZE
