"""Plans that begin alike are run to where they part once, and give what they give alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from turbo4d.compiler.calibrate.beginnings import Beginnings, Given
from turbo4d.compiler.calibrate.fit import fitted_runs
from turbo4d.runtime.action import REUSE, Action

from tests.compiler.calibrate.tiny import learned

STEP = {"step": REUSE}
DEEP = {"step": Action("reuse", order=1)}
CORE = {"core": REUSE}
FIRST = ({}, STEP, {}, STEP, DEEP)


def counted(harness: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    following = harness.following

    def made(plan: Any) -> Any:
        inner = following(plan)

        def call(stream: str, step: int, args: Any) -> Any:
            calls.append(step)
            return inner(stream, step, args)

        return call

    monkeypatch.setattr(harness, "following", made)
    return calls


@pytest.mark.parametrize(
    ("rows", "run_anew"),
    [
        (({}, STEP, {}, DEEP, {}), [4]),
        (FIRST, []),
        (({}, {}, STEP, STEP, DEEP), [1]),
        # What a step reads beside the step's slot is written by those before, which run again.
        (({}, STEP, {}, CORE, DEEP), [0, 2, 3]),
    ],
)
def test_a_plan_gives_what_it_gives_alone(
    rows: tuple[Any, ...], run_anew: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness, given = learned()
    recorded = [harness.record(given, (), lambda at, values: None)]
    plans = [harness.plan("p", {"main": each}, max_age=9, max_variants=9) for each in (FIRST, rows)]
    alone, [sample] = fitted_runs(harness, [given], plans[1], recorded)
    known = Beginnings()
    fitted_runs(harness, [given], plans[0], recorded, known)
    calls = counted(harness, monkeypatch)
    again, [other] = fitted_runs(harness, [given], plans[1], recorded, known)
    assert again == alone
    assert torch.equal(sample, other)
    assert calls == run_anew


def test_what_was_not_asked_for_longest_goes_first() -> None:
    known = Beginnings(2)
    one, two, three = (Given(None, (torch.tensor(float(at)),)) for at in range(3))
    known.put(("a",), one)
    known.put(("b",), two)
    assert known.get(("a",)) is one
    known.put(("c",), three)
    assert known.get(("b",)) is None
    assert known.get(("a",)) is one
