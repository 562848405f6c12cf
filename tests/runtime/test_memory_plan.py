import json
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from turbo4d.runtime.errors import PlanError
from turbo4d.runtime.lifetime import Lifetime, held_values
from turbo4d.runtime.memory_plan import ALIGNMENT, arena_of, memory_plan, refuse_arena

from tests.runtime.fake import CHAINS, REGIONS, REUSE, SLOT_BYTES, plan_of
from tests.runtime.random_plans import TREE, legal_rows, plan

KIB = ALIGNMENT * 4


def sized(name: str, steps: set[int], kib: int = 1):
    return name, (kib * KIB,), 1, frozenset(steps)


def arena(*slots):
    return arena_of(
        {name: parts for name, parts, _, _ in slots},
        {name: values for name, _, values, _ in slots},
        {name: steps for name, _, _, steps in slots},
    )


def test_slots_that_are_never_held_at_once_share_their_bytes():
    found = arena(sized("a", {0, 1}), sized("b", {2, 3}), sized("c", {1, 2}))
    assert found.size_bytes == 2 * KIB
    assert found.places["a"].offset == found.places["b"].offset != found.places["c"].offset


def test_small_slots_lie_in_the_place_of_a_large_one():
    found = arena(sized("large", {0, 5}, 3), sized("b", {2}, 1), sized("c", {2}, 2))
    assert found.size_bytes == 3 * KIB


def test_a_slot_that_is_held_twice_keeps_one_place():
    found = arena(sized("a", {0, 4}), sized("b", {2}), sized("c", {2, 4}))
    assert found.size_bytes == 2 * KIB
    assert found.places["a"].offset == found.places["b"].offset


def test_the_tensors_of_a_value_are_aligned():
    found = arena_of(
        {"a": (300, 5), "b": (1,)}, {"a": 2, "b": 1}, dict.fromkeys("ab", frozenset((0,)))
    )
    place = found.places["a"]
    assert (place.parts, place.value_bytes, place.values) == ((0, 2 * ALIGNMENT), 3 * ALIGNMENT, 2)
    assert place.end - place.offset == 6 * ALIGNMENT
    assert found.size_bytes == 7 * ALIGNMENT


STEPS = st.sets(st.integers(0, 7), min_size=1).map(frozenset)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 2), STEPS), max_size=7))
def test_no_two_slots_that_meet_overlap(slots):
    named = [(str(n), (kib * KIB,), values, steps) for n, (kib, values, steps) in enumerate(slots)]
    found = arena(*named)
    for n, (one, _, _, steps) in enumerate(named):
        for other, _, _, others in named[:n]:
            a, b = found.places[one], found.places[other]
            assert steps.isdisjoint(others) or a.end <= b.offset or b.end <= a.offset
    taken = [sum(p[0] * v for _, p, v, s in named if step in s) for step in range(8)]
    assert max(taken) <= found.size_bytes <= sum(p[0] * v for _, p, v, _ in named)
    assert found.size_bytes == max((p.end for p in found.places.values()), default=0)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 4))
def test_every_value_of_a_plan_has_bytes_of_its_own_while_it_is_held(data, max_age):
    big = [replace(r, slot_bytes=r.slot_bytes * 300, relevance_bytes=99) for r in TREE]
    proof = plan(data.draw(legal_rows(max_age, 2)), max_age).check(big)
    memory = memory_plan(proof)
    found = memory.to_json(None)
    assert json.loads(json.dumps(found)) == found
    assert max(found["live_bytes_by_step"]) == proof.peak_bytes == found["peak_bytes"]
    assert found["arena_bytes"] >= proof.peak_bytes
    values = found["slots"]
    for n, one in enumerate(values):
        assert 0 <= one["offset"] <= found["arena_bytes"] - one["bytes"]
        for other in values[:n]:
            apart = one["written"] > other["last_read"] or other["written"] > one["last_read"]
            below = one["offset"] + one["bytes"] <= other["offset"]
            assert apart or below or other["offset"] + other["bytes"] <= one["offset"]
    for step, held in enumerate(found["live_bytes_by_step"]):
        live = [v["bytes"] for v in values if v["written"] <= step <= v["last_read"]]
        assert held == sum(live)


def test_a_value_dies_after_its_last_reader():
    proof = plan_of({}, REUSE, {}, {}, CHAINS, REUSE).check(REGIONS)
    lived = [(each.slot, each.written, each.reads) for each in proof.lifetimes["main"]]
    assert lived == [
        ("core", 0, (1,)),
        ("down.chain", 3, (4,)),
        ("up.chain", 3, (4,)),
        ("core", 4, (5,)),
    ]
    assert proof.held_bytes["main"] == tuple(n * SLOT_BYTES for n in (1, 1, 0, 2, 3, 1))


def test_the_arenas_of_streams_lie_one_behind_the_other():
    memory = memory_plan(plan_of(streams={"a": [{}, REUSE], "b": [{}, CHAINS]}).check(REGIONS))
    found = memory.to_json(72)
    assert found["bound"] == 72
    assert found["arena_bytes"] == 3 * ALIGNMENT
    assert sorted(each["offset"] for each in found["slots"]) == [0, ALIGNMENT, 2 * ALIGNMENT]
    assert found["live_bytes_by_step"] == [3 * SLOT_BYTES] * 2


def test_an_arena_beyond_the_bound_names_stream_and_slot():
    bounded = plan_of({}, CHAINS, max_cache_bytes=2 * ALIGNMENT - 1)
    found = memory_plan(bounded.check(REGIONS)).arenas["main"]
    text = (
        "plan 'p', stream 'main', region 'down.chain': fixed slots take 512 bytes, 256 of them "
        "this one's; max_cache_bytes allows 511. Raise it, reuse fewer regions or leave "
        "fixed_slots off."
    )
    with pytest.raises(PlanError, match=f"^{re.escape(text)}$"):
        refuse_arena(bounded, "main", found, 0)
    refuse_arena(replace(bounded, max_cache_bytes=512), "main", found, 0)
    with pytest.raises(PlanError, match="take 513 bytes"):
        refuse_arena(replace(bounded, max_cache_bytes=512), "main", found, 1)


def test_what_waits_lies_on_the_host():
    value = Lifetime("a", 0, (4, 5, 9))
    held = held_values([value], [True] * 10, offload=True)
    assert [bool(at) for at in held] == [n in (0, 3, 4, 5, 8, 9) for n in range(10)]
    # Where the stream does not run it is fetched at the step before.
    running = [n % 2 == 0 for n in range(11)]
    held = held_values([Lifetime("a", 0, (8,))], running, offload=True)
    assert [bool(at) for at in held] == [n in (0, 1, 6, 7, 8) for n in range(11)]


def test_a_bound_may_hold_for_what_is_not_on_the_host():
    without = {"up.chain": "bypass"}
    rows = [{}, without, REUSE, without, {"up.chain": "reuse"}]
    bounded = plan_of(*rows, max_cache_bytes=SLOT_BYTES)
    assert bounded.check(REGIONS, offload=True).held_bytes["main"] == (24, 24, 24, 24, 24)
    with pytest.raises(PlanError, match=r"region 'up\.chain': all slots hold up to 48 bytes;"):
        bounded.check(REGIONS)
