import pytest
from hypothesis import given
from hypothesis import strategies as st
from turbo4d.runtime.action import Action
from turbo4d.runtime.errors import PlanError
from turbo4d.runtime.plan import RegionInfo

from tests.runtime.fake import CHAINS, REGIONS, REUSE, SLOT_BYTES, plan_of
from tests.runtime.random_plans import (
    PARENT,
    RELEVANCE,
    SLOTS,
    TREE,
    holders,
    keys_of,
    legal_rows,
    plan,
)


class Illegal(Exception):
    pass


def interpret(rows, max_age: int) -> tuple[list[set[str]], int]:
    """Carries a stream out naively: writes everything everywhere, then looks who was read.

    Returns what each step had to write and the bytes held at most.
    """
    written: dict[str, list[int]] = {name: [] for name in PARENT}
    reads: list[tuple[list[int], int, str]] = []  # the steps read from, the reader, the region
    for step, row in enumerate(rows):
        if row is None:
            continue
        executed = {n for n in PARENT if not any(h in row for h in holders(n))}
        for name, action in row.items():
            past = written[name]
            too_few = len(past) <= action.order or step - past[-1] > max_age
            bypassed_core = action.kind == "bypass" and name == "core"
            if name not in executed or bypassed_core or (action.reads and too_few):
                raise Illegal
            if action.reads:
                reads.append((past[-1 - action.order :], step, name))
            if action.kind == "prune":
                source = RELEVANCE[name]
                says = [] if source is None else written[source]
                if not says or step - says[-1] > max_age:
                    raise Illegal
                reads.append((says[-1:], step, f"{source}.relevance"))
        for name in executed - {*row}:
            written[name].append(step)
    needed = [{n for sources, _, n in reads if step in sources} for step in range(len(rows))]
    held = [
        {(name, at) for sources, last, name in reads for at in sources if at <= step <= last}
        for step in range(len(rows))
    ]
    return needed, max(sum(SLOTS[name] for name, _ in values) for values in held)


ANY_ACTION = st.sampled_from(["reuse", "bypass", "prune(0.5)", "reuse(1)", "reuse(2)"])
ANY_ROW = st.none() | st.dictionaries(
    st.sampled_from(sorted(PARENT)), ANY_ACTION.map(Action.parse), max_size=2
)


@given(st.lists(ANY_ROW, min_size=1, max_size=8), st.integers(0, 4))
def test_it_agrees_with_a_naive_interpreter(rows, max_age):
    candidate = plan(rows, max_age)
    try:
        writes, peak_bytes = interpret(candidate.streams["main"], max_age)
    except Illegal:
        with pytest.raises(PlanError):
            candidate.check(TREE)
        return
    proof = candidate.check(TREE)
    assert proof.peak_bytes == peak_bytes
    assert [key and set(key.writes) for key in proof.keys["main"]] == [
        None if row is None else names for row, names in zip(rows, writes, strict=True)
    ]
    assert set(proof.slots) == {name for names in writes for name in names}
    assert {*proof.depth} == {*proof.slots}


@given(st.data(), st.integers(0, 4))
def test_every_legal_plan_passes_and_its_variants_carry_it_out(data, max_age):
    rows = data.draw(legal_rows(max_age))
    proof = plan(rows, max_age).check(TREE)
    held: dict[str, int] = {}
    for step, live in enumerate(proof.live["main"]):
        key = keys_of(proof)[step]
        assert all(step - held[name] <= max_age for name in key.reads)
        held.update(dict.fromkeys(key.writes, step))
        held = {name: at for name, at in held.items() if name in live}
    assert not held


@pytest.mark.parametrize(
    ("rows", "fields", "text"),
    [
        (
            [REUSE],
            {},
            "plan 'p', stream 'main', step 0, region 'core': its slot is read before it is "
            "written; compute the region first.",
        ),
        (
            [{}, {"down.chain": "reuse(1)"}],
            {},
            "plan 'p', stream 'main', step 1, region 'down.chain': its slot is read before it is "
            "written; compute the region 2 times first.",
        ),
        (
            [{"down.chain": "bypass"}, {"down.chain": "reuse"}],
            {},
            "plan 'p', stream 'main', step 1, region 'down.chain': its slot is read before it is "
            "written; compute the region first.",
        ),
        # Inside a region that is reused nothing is computed, so nothing is written.
        (
            [{}, REUSE, REUSE, {"up.chain": "reuse"}],
            {"max_age": 2},
            "plan 'p', stream 'main', step 3, region 'up.chain': its slot is 3 steps old; the plan "
            "allows 2. Refresh at step 2 or raise max_age.",
        ),
        (
            [{}, {"core": "reuse", "up.chain": "reuse"}],
            {},
            "plan 'p', stream 'main', step 1, region 'up.chain': reuse inside 'core', which is "
            "reuse; name the outer region alone.",
        ),
        (
            [{"core": "bypass"}],
            {},
            "plan 'p', stream 'main', step 0, region 'core': bypass of a region that adds nothing "
            "to its entry; only a residual region can be left out.",
        ),
        (
            [{"mid.camera": "reuse"}],
            {},
            "region 'mid.camera' is unknown to this model; it has 3 regions: 'core', 'down.chain', "
            "'up.chain'.",
        ),
        (
            [{}, REUSE],
            {"max_variants": 1},
            "plan 'p', stream 'main', step 1, region 'core': variant 'core.reuse', of 1 steps, is "
            "one of 2; the plan allows 1. Raise max_variants or let more steps share their "
            "actions.",
        ),
        (
            [{}, REUSE],
            {"max_cache_bytes": 23},
            "plan 'p', stream 'main', step 0, region 'core': all slots hold up to 24 bytes; "
            "max_cache_bytes allows 23. Here they hold 24, 24 of them 'core'; raise the bound, "
            "store slots smaller or reuse fewer regions.",
        ),
    ],
)
def test_each_violation_is_named(rows, fields, text):
    with pytest.raises(PlanError) as caught:
        plan_of(*rows, **fields).check(REGIONS)
    assert str(caught.value) == text


def test_an_unknown_region_lists_some_of_the_known():
    blocks = [RegionInfo(f"mid.{n:02}", "block", None, True, 1, 1) for n in range(48)]
    with pytest.raises(PlanError) as caught:
        plan_of({"mid.camera": "bypass"}).check(blocks)
    assert str(caught.value) == (
        "region 'mid.camera' is unknown to this model; it has 48 blocks: 'mid.00', 'mid.01', "
        "'mid.02', 'mid.03', 'mid.04', 'mid.05', 'mid.06', 'mid.07', ..."
    )


def test_a_note_says_which_cell_names_an_unknown_region():
    with pytest.raises(PlanError) as caught:
        plan_of({}, {"mid.camera": "bypass"}).check(REGIONS)
    assert caught.value.__notes__ == [
        "It is named at plan 'p', stream 'main', step 1, region 'mid.camera'."
    ]


def test_the_bytes_of_each_stream_are_named_where_they_are_too_many():
    streams = {"a": [{}, REUSE], "b": [{}, CHAINS]}
    with pytest.raises(PlanError) as caught:
        plan_of(streams=streams, max_cache_bytes=71).check(REGIONS)
    assert str(caught.value) == (
        "plan 'p', stream 'b', step 0, region 'down.chain': all slots hold up to 72 bytes, 24 of "
        "stream 'a' and 48 of stream 'b'; max_cache_bytes allows 71. Here they hold 48, 24 of them "
        "'down.chain'; raise the bound, store slots smaller or reuse fewer regions."
    )


def test_an_extrapolation_needs_as_many_values_and_holds_as_many():
    proof = plan_of({}, {}, {"core": "reuse(1)"}).check(REGIONS)
    assert [key.writes for key in keys_of(proof)] == [("core",), ("core",), ()]
    assert proof.peak_bytes == 2 * SLOT_BYTES
    with pytest.raises(
        PlanError, match=r"step 2, region 'core': its slot is read before .* 3 times"
    ):
        plan_of({}, {}, {"core": "reuse(2)"}).check(REGIONS)


def test_streams_are_proven_apart_and_their_peaks_add_up():
    rows = {"even": [{}, None, REUSE, None], "odd": [None, {}, None, REUSE]}
    proof = plan_of(streams=rows).check(REGIONS)
    assert proof.peak_bytes == 2 * SLOT_BYTES
    assert [key.name for key in proof.variants] == ["compute+core.w", "core.reuse"]
    with pytest.raises(PlanError, match="stream 'odd', step 1, region 'core': its slot is read"):
        plan_of(streams={"even": [{}, {}], "odd": [None, REUSE]}).check(REGIONS)


PRUNABLE = (
    RegionInfo("s", "block", None, True, 10, 100, "s", 3, 80, ""),
    RegionInfo("c", "block", None, True, 20, 100, "s", 3, 90, ""),
    RegionInfo("j", "chain", None, True, 40, 100, unprunable="its attentions are joint"),
)


def test_a_pruned_region_reads_its_slot_and_what_says_which_tokens_matter():
    half, tenth = "prune(0.5)", "prune(0.1)"
    proof = plan_of({}, {"c": half}, {"c": half, "s": tenth}, {}).check(PRUNABLE)
    first, second, third, last = keys_of(proof)
    assert first.writes == ("c", "s.relevance")
    assert (second.relevance, second.reads) == (("s.relevance",), ("c", "s.relevance"))
    # A step that computes the source refreshes its relevance, and the slot if it is read.
    assert second.writes == ("s", "s.relevance")
    assert (third.reads, third.writes) == (("c", "s", "s.relevance"), ())
    assert (last.reads, last.relevance) == ((), ())
    # The relevance that the third step reads is there beside the one that it writes.
    assert proof.held_bytes["main"] == (20 + 3, 20 + 10 + 2 * 3, 20 + 10 + 3, 0)
    assert proof.peak_bytes == 10 + 20 + 2 * 3
    assert proof.skipped_flops["main"] == (0, 45, 45 + 72, 0)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (
            [{}, {"j": "prune(0.5)"}],
            "step 1, region 'j': prune(0.5) of a region that cannot be pruned: its attentions are "
            "joint. Compute or reuse it.",
        ),
        (
            [{"s": "bypass"}, {"c": "prune(0.5)"}],
            "step 1, region 'c': the slot 's.relevance', which says which tokens matter, is read "
            "before it is written; compute 's' first.",
        ),
        (
            [{}, {"s": "bypass"}, {"s": "bypass"}, {"s": "bypass", "c": "prune(0.5)"}],
            "step 3, region 'c': the slot 's.relevance', which says which tokens matter, is 3 "
            "steps old; the plan allows 2. Compute 's' at step 2 or raise max_age.",
        ),
        ([{"c": "prune(1.0)"}], "step 0, region 'c': its slot is read before it is written; "
         "compute the region first."),
    ],
)  # fmt: skip
def test_a_prune_that_cannot_be_carried_out_is_named(rows, text):
    with pytest.raises(PlanError) as caught:
        plan_of(*rows, max_age=2).check(PRUNABLE)
    assert str(caught.value) == f"plan 'p', stream 'main', {text}"


def test_a_step_whose_chains_are_reused_can_write_the_core():
    proof = plan_of({}, {"down.chain": "reuse", "up.chain": "reuse"}, REUSE).check(REGIONS)
    assert [key.writes for key in keys_of(proof)] == [("down.chain", "up.chain"), ("core",), ()]
    assert proof.skipped_flops["main"] == (0, 70, 100)


def test_writes_and_variant_of_one_step():
    plan = plan_of({}, REUSE, None)
    assert plan.writes("main", 0, REGIONS) == ("core",)
    assert plan.variant("main", 1, REGIONS).name == "core.reuse"
    with pytest.raises(PlanError, match=r"^plan 'p': stream 'main' does not run at step 2\.$"):
        plan.variant("main", 2, REGIONS)
    with pytest.raises(PlanError, match=r"^plan 'p': stream 'b' is unknown; it has 'main'\.$"):
        plan.variant("b", 0, REGIONS)
