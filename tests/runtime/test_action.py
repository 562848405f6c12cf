import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from turbo4d.runtime.action import Action
from turbo4d.runtime.errors import PlanError

ACTIONS = st.one_of(
    st.sampled_from([Action("compute"), Action("bypass")]),
    st.integers(0, 9).map(lambda order: Action("reuse", order=order)),
    st.floats(0, 1, exclude_min=True).map(lambda k: Action("prune", keep=k)),
)
CHOICES = (
    "there are bypass, compute, prune(KEEP), reuse, reuse(ORDER), reuse(mix=W,...), "
    "reuse(mix=W,...;sample=W)."
)


@given(ACTIONS)
def test_text_round_trips(action):
    assert Action.parse(str(action)) == action


def test_texts():
    actions = [Action("compute"), Action("reuse"), Action("reuse", 1), Action("prune", keep=0.5)]
    assert [str(action) for action in actions] == ["compute", "reuse", "reuse(1)", "prune(0.5)"]


def test_only_what_takes_the_slot_reads_it():
    reads = [Action.parse(t).reads for t in ("compute", "bypass", "reuse", "prune(0.5)")]
    assert reads == [False, False, True, True]


@pytest.mark.parametrize(
    "text", ["", "skip", "reuse()", "reuse(-1)", "reuse(10)", "Reuse", "prune"]
)
def test_other_texts_are_refused(text):
    with pytest.raises(PlanError, match=re.escape(f"action: {text!r} is unknown; {CHOICES}")):
        Action.parse(text)


def test_a_share_that_is_no_number_is_refused():
    with pytest.raises(
        PlanError, match=re.escape(f"action: 'prune(..)' names no number where it must; {CHOICES}")
    ):
        Action.parse("prune(..)")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"kind": "skip"}, f"action: 'skip' is unknown; {CHOICES}"),
        ({"kind": "bypass", "order": 1}, "action: bypass has order 1; only reuse has, 0 to 9."),
        ({"kind": "reuse", "order": 10}, "action: reuse has order 10; only reuse has, 0 to 9."),
        ({"kind": "reuse", "keep": 0.5}, "action: reuse has keep 0.5; prune has, nothing else."),
        ({"kind": "prune"}, "action: prune has keep None; prune has, nothing else."),
        (
            {"kind": "prune", "keep": 0.0},
            "action: prune keeps 0.0; wanted a share above 0 and at most 1.",
        ),
        (
            {"kind": "prune", "keep": 1.5},
            "action: prune keeps 1.5; wanted a share above 0 and at most 1.",
        ),
        (
            {"kind": "prune", "keep": math.nan},
            "action: prune keeps nan; wanted a share above 0 and at most 1.",
        ),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields, text):
    with pytest.raises(PlanError) as caught:
        Action(**fields)
    assert str(caught.value) == text
