"""Slots that are stored smaller, that keep their addresses, or that wait on the host."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from turbo4d.runtime.errors import MemoryPlanError, OptionError, PlanError
from turbo4d.runtime.memory_plan import memory_plan
from turbo4d.runtime.runner import Runner
from turbo4d.runtime.signature import Signature
from turbo4d.runtime.slot_storage import decode, encode, stored_bytes
from turbo4d.runtime.variant_key import VariantKey

from tests.runtime import fake
from tests.runtime.fake import CHAINS, REUSE, SIGMAS, Fakes, denoise, plan_of, signature
from tests.runtime.random_plans import legal_rows, plan
from tests.runtime.test_proof_holds import SIZES, WIDE, Engine, Prologue
from turbo4d import session

SIZE = 640
REGIONS = tuple(
    replace(region, slot_bytes=4 * SIZE, slot_forms=(((SIZE,), torch.float32),))
    for region in fake.REGIONS
)
BYPASS = {"up.chain": "bypass"}
NEXT = {"core": "reuse(1)"}
# The chains wait for two steps between being written and being read.
WAITING = ({}, BYPASS, REUSE, {"up.chain": "reuse"}, {}, REUSE, CHAINS, REUSE)


class Spy:
    """Wraps an engine; notes the addresses of what it reads."""

    def __init__(self, inner, seen):
        self.inner, self.seen = inner, seen
        self.key, self.reads, self.writes = inner.key, inner.reads, inner.writes

    def __call__(self, args, prologue, slots_in):
        for name, slot in zip(self.reads, slots_in, strict=True):
            self.seen.setdefault(name, set()).add(slot.data_ptr())
        return self.inner(args, prologue, slots_in)


@dataclass
class Called:
    """An engine that does as it is told."""

    key: VariantKey
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    call: Callable[..., Any]

    def __call__(self, args, prologue, slots_in):
        return self.call(args, prologue, slots_in)


def wide_runner(plan, seen=None, **options):
    build = Fakes()
    engines = build if seen is None else lambda key: Spy(build(key), seen)
    return Runner(signature(REGIONS), engines, plan=plan, **options)


def calls_of(count):
    generator = torch.Generator().manual_seed(0)
    for step in range(count):
        x = torch.randn(SIZE, generator=generator)
        yield step, [fake.WEIGHT, x, torch.full((6,), SIGMAS[step]), torch.full((2,), 0.5)]


def run_all(fast, made, runs=1, **options):
    """The outputs of the last of several runs, and the report."""
    outputs = []
    with session(fast, **options) as run:
        for _ in range(runs):
            outputs = []
            for step, args in calls_of(made.steps):
                run.step(step)
                outputs.append(fast(*args)[0])
    assert run.report()["events"] == []
    return outputs, run.report()


def expected(plan):
    """What the plan's rows give where every slot goes through its storage."""
    slots, outputs = {}, []
    for step, args in calls_of(plan.steps):
        row = plan.streams["main"][step]
        output, values = denoise(args, VariantKey(tuple(row.items()), (), exact=True), slots)
        for name, value in values.items():
            slots[name] = decode(encode(value, plan.storage.get(name, "compute")))
        outputs.append(output)
    return outputs


class Copies:
    """Stands in for a device beside its host, on the CPU."""

    def __init__(self):
        self.moves = Counter()

    def to_host(self, tensor):
        self.moves["out"] += 1
        return tensor.clone()

    def to_device(self, held):
        self.moves["back"] += 1
        return Arrival([each.clone() for each in held])


class Arrival:
    def __init__(self, tensors):
        self.tensors = tensors

    def wait(self):
        return self.tensors


@pytest.fixture
def copies(monkeypatch):
    found = Copies()
    monkeypatch.setattr("turbo4d.runtime.slots.transfers_for", lambda device: found)
    return found


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


@pytest.mark.parametrize("poison", ["0", "1"])
@pytest.mark.parametrize("storage", ["compute", "int8"])
def test_what_waits_is_moved_and_comes_back(monkeypatch, copies, storage, poison):
    monkeypatch.setenv("TURBO4D_POISON", poison)
    made = plan_of(*WAITING, storage={"up.chain": storage})
    outputs, report = run_all(wide_runner(made), made, runs=2, offload=True)
    assert all(map(torch.equal, outputs, expected(made)))
    proof = made.check(REGIONS, offload=True)
    assert report["cache_peak_bytes"] == proof.peak_bytes <= made.check(REGIONS).peak_bytes
    assert report["cache_host_bytes"] >= proof.slot_bytes["up.chain"]
    assert copies.moves["out"] > 0
    assert copies.moves["back"] > 0


def test_a_bound_that_only_offload_keeps(copies):
    rows = [{}, BYPASS, REUSE, BYPASS, {"up.chain": "reuse"}]
    made = plan_of(*rows, max_cache_bytes=4 * SIZE)
    with pytest.raises(PlanError, match="all slots hold up to 5120 bytes"):
        wide_runner(made)
    fast = wide_runner(replace(made, max_cache_bytes=None))
    outputs, report = run_all(fast, made, plan=made, offload=True)
    assert all(map(torch.equal, outputs, expected(made)))
    assert report["cache_peak_bytes"] == 4 * SIZE


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


TWICE = ({}, BYPASS, REUSE, REUSE, {"up.chain": "reuse"}, BYPASS, REUSE, {"up.chain": "reuse"})


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


def test_what_comes_back_leaves_again_uncopied(copies):
    made = plan_of(*TWICE, max_age=7)
    run_all(wide_runner(made), made, offload=True)
    assert copies.moves == {"out": 1, "back": 2}


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


def test_options_that_contradict_each_other_are_refused():
    made = plan_of({}, BYPASS, {}, {"up.chain": "reuse"})
    both = (
        "fixed_slots and offload are both on; what waits on the host has no fixed address. Leave "
        "one off."
    )
    for fast, options, text in (
        (wide_runner(made), {"fixed_slots": True, "offload": True}, both),
        (
            wide_runner(made),
            {"adaptive": True, "offload": True},
            "offload and adaptive are both on; an adaptive run cannot tell what its next step "
            "reads. Leave one off.",
        ),
        (
            wide_runner(made),
            {"offload": True},
            "offload: the slots are on cpu; wanted a CUDA device, beside which the host can hold "
            "them. Leave offload off.",
        ),
    ):
        with pytest.raises(OptionError, match=f"^{re.escape(text)}$"):
            run_all(fast, made, **options)


def test_an_adaptive_run_has_fixed_slots_too():
    seen = {}
    made = plan_of(*[{}, REUSE] * 4, levels=SIGMAS)
    _, report = run_all(wide_runner(made, seen), made, runs=2, adaptive=True, fixed_slots=True)
    assert len(seen["core"]) == 1
    assert report["cache_peak_bytes"] == 4 * SIZE
