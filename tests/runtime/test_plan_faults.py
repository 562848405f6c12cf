"""A valid plan of which one entry is changed by hand: the refusal names the cell."""

import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from turbo4d.runtime.action import Action
from turbo4d.runtime.errors import PlanError

from tests.runtime.fake import REUSE, plan_of
from tests.runtime.random_plans import PARENT, RELEVANCE, TREE, holders, legal_rows, plan

CELL = re.compile(r"^plan 'p', stream 'main', step (\d+), region '([\w.]+)': ")
# What each fault's sentence says behind the cell.
SAYS = {
    "unwritten": "read before it is written; compute ",
    "age": "steps old; the plan allows ",
    "variants": "Raise max_variants or let more steps share their actions.",
    "bytes": "max_cache_bytes allows ",
}
ACTIONS = [*map(Action.parse, ("reuse", "reuse(1)", "reuse(2)", "bypass", "prune(0.25)"))]


def tight(candidate):
    """The plan with bounds that are what it needs, no more."""
    proof = candidate.check(TREE)
    return replace(candidate, max_variants=len(proof.variants), max_cache_bytes=proof.peak_bytes)


def changed(candidate):
    """The plan with one cell changed by hand, in every way that no rule of nesting forbids."""
    for step, row in enumerate(candidate.streams["main"]):
        for name in PARENT:
            if any(holder in row for holder in holders(name)):
                continue
            others = {n: a for n, a in row.items() if name not in (n, *holders(n))}
            cells = [others, *({**others, name: action} for action in ACTIONS)]
            if name == "core":
                cells = [cell for cell in cells if cell.get(name) != Action("bypass")]
            if RELEVANCE[name] is None:
                cells = [c for c in cells if name not in c or c[name].kind != "prune"]
            for cell in cells:
                rows = [*candidate.streams["main"]]
                rows[step] = cell
                yield replace(candidate, streams={"main": tuple(rows)})


def misread(candidate) -> dict[str, set[tuple[int, str]]] | None:
    """The faults of reading, by kind and cell, of the first step that has any."""
    written: dict[str, list[int]] = {name: [] for name in PARENT}
    for step, row in enumerate(candidate.streams["main"]):
        found: dict[str, set[tuple[int, str]]] = {"unwritten": set(), "age": set()}
        for name, action in row.items():
            read = [(name, action.order + 1)] if action.reads else []
            if action.kind == "prune":
                read.append((RELEVANCE[name], 1))
            for source, count in read:
                if len(written[source]) < count:
                    found["unwritten"].add((step, name))
                elif step - written[source][-1] > candidate.max_age:
                    found["age"].add((step, name))
        if found["unwritten"] | found["age"]:
            return found
        for name in PARENT:
            if not {name, *holders(name)} & row.keys():
                written[name].append(step)
    return None


def verdict(candidate) -> str | None:
    """Which fault the plan is refused for, None where it is not; the cell it names is at fault."""
    try:
        proof = candidate.check(TREE)
    except PlanError as error:
        text = str(error)
    else:
        assert misread(candidate) is None
        assert len(proof.variants) <= candidate.max_variants
        assert proof.peak_bytes <= candidate.max_cache_bytes
        return None
    cell = CELL.match(text)
    assert cell is not None, text
    step, region = int(cell[1]), cell[2]
    [fault] = [kind for kind, words in SAYS.items() if words in text]
    wrong = misread(candidate)
    if wrong is not None:
        assert (step, region) in wrong[fault]
        return fault
    free = replace(candidate, max_variants=999, max_cache_bytes=None)
    proof = free.check(TREE)
    if len(proof.variants) > candidate.max_variants:
        key = free.variant("main", step, TREE)
        uses = Counter(proof.keys["main"])
        assert fault == "variants"
        assert uses[key] == min(n for each, n in uses.items() if each.actions or each.writes)
        slots = {name.removesuffix(".relevance") for name in key.writes}
        assert region in slots | dict(key.actions).keys()
        return fault
    assert fault == "bytes"
    assert proof.held_bytes["main"][step] == proof.peak_bytes > candidate.max_cache_bytes
    sizes = Counter()
    for value in proof.lifetimes["main"]:
        sizes[value.slot] += value.holds(step) * proof.slot_bytes[value.slot]
    slots = [slot for slot, size in sizes.items() if size == max(sizes.values())]
    assert region in {slot.removesuffix(".relevance") for slot in slots}
    return fault


@settings(max_examples=8, deadline=None)
@given(st.data(), st.integers(1, 4))
def test_every_change_of_one_cell_is_legal_or_refused_by_its_cell(data, max_age):
    candidate = tight(plan(data.draw(legal_rows(max_age, 1)), max_age))
    for wrong in changed(candidate):
        verdict(wrong)


def test_one_change_can_be_each_fault():
    rows = [{}, {"core": Action("reuse")}] * 2 + [{"b.chain": Action("reuse")}, {}]
    candidate = tight(plan(rows, 2))
    assert verdict(candidate) is None
    found = Counter(verdict(wrong) for wrong in changed(candidate))
    assert found.keys() == {*SAYS, None}


def test_the_cell_that_no_other_step_has_is_the_one_named():
    rows = [{}, REUSE, REUSE, REUSE, {}, REUSE, REUSE]
    plan_of(*rows, max_variants=2).check(TREE)
    rows[2] = {"a.chain": "bypass"}
    with pytest.raises(PlanError, match=r"^plan 'p', stream 'main', step 2, region 'a\.chain': "):
        plan_of(*rows, max_variants=2).check(TREE)
    shared = {"a.chain": "bypass"}
    rows = [shared, shared, {**shared, "lone.chain": "bypass"}, shared]
    with pytest.raises(
        PlanError, match=r"^plan 'p', stream 'main', step 2, region 'lone\.chain': "
    ):
        plan_of(*rows, max_variants=1).check(TREE)


def test_the_storage_of_a_region():
    with pytest.raises(PlanError, match=r"^region 'mid' is unknown to this model; ") as caught:
        plan_of({}, storage={"mid": "int8"}).check(TREE)
    assert caught.value.__notes__ == ["It is named at the storage of plan 'p'."]
    text = (
        "plan, region 'core': storage is 'fp8'; wanted one of 'compute', 'float16', 'float8', "
        "'int8'."
    )
    with pytest.raises(PlanError, match=f"^{re.escape(text)}$"):
        plan_of({}, storage={"core": "fp8"})
    text = (
        "region 'core': its storage is 'int8' and the shapes of its slot are not known; leave it "
        "in 'compute'."
    )
    with pytest.raises(PlanError, match=f"^{re.escape(text)}$"):
        plan_of({}, REUSE, storage={"core": "int8"}).check(TREE)


def test_the_compute_dtype_is_one_spelling():
    said = plan_of({}, storage={"core": "compute", "b.chain": "int8"})
    assert said == plan_of({}, storage={"b.chain": "int8"})
