import pytest
from hypothesis import given
from hypothesis import strategies as st
from turbo4d.runtime.action import Action
from turbo4d.runtime.errors import PlanError

from tests.runtime.fake import REGIONS, REUSE, ROWS, plan_of
from tests.runtime.random_plans import PARENT, TREE, holders, plan

CELL = st.sampled_from(["reuse", "bypass", "prune(0.5)", "reuse(1)"]).map(Action.parse)
ROW = st.none() | st.dictionaries(st.sampled_from(sorted(PARENT)), CELL)


def test_the_outermost_action_is_kept_and_each_cell_left_out_is_said():
    rows = [{}, {"core": "reuse", "up.chain": "bypass", "down.chain": "reuse"}]
    before = plan_of(*rows)
    with pytest.raises(PlanError, match=r"step 1, region 'down.chain': reuse inside 'core'"):
        before.check(REGIONS)
    after, sentences = before.settled(REGIONS)
    assert after == plan_of({}, REUSE)
    assert sentences == (
        "stream 'main', step 1: reuse of 'down.chain' is left out, since 'core' around it is "
        "reuse.",
        "stream 'main', step 1: bypass of 'up.chain' is left out, since 'core' around it is reuse.",
    )
    after.check(REGIONS)


def test_the_outermost_is_the_one_that_is_named():
    row = {name: Action.parse("reuse") for name in ("a.chain.camera", "a.chain", "core")}
    after, sentences = plan([row], 9).settled(TREE)
    assert after.streams["main"] == ({"core": row["core"]},)
    assert [sentence.split("since ")[1] for sentence in sentences] == [
        "'core' around it is reuse."
    ] * 2


def test_a_legal_plan_is_left_as_it_is():
    assert plan_of(*ROWS).settled(REGIONS) == (plan_of(*ROWS), ())


def test_an_unknown_region_is_refused():
    with pytest.raises(
        PlanError, match=r"^region 'mid' is unknown to this model; it has 3 regions"
    ):
        plan_of({"mid": "bypass"}).settled(REGIONS)


@given(st.lists(ROW, min_size=1, max_size=4))
def test_nothing_is_left_inside_another_and_nothing_else_is_gone(rows):
    after, sentences = plan(rows, 9).settled(TREE)
    gone = 0
    for before, left in zip(rows, after.streams["main"], strict=True):
        if before is None or left is None:
            assert before is left is None
            continue
        inside = {name for name in before if any(outer in before for outer in holders(name))}
        assert set(left) == set(before) - inside
        assert all(left[name] == before[name] for name in left)
        gone += len(inside)
    assert len(sentences) == gone
    assert after.settled(TREE) == (after, ())
