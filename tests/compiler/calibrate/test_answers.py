"""The answer of a call made of other tensors, and runs in which decided calls ask no graph."""

from __future__ import annotations

import torch
from turbo4d.compiler.calibrate.answers import AnswerForm

from tests.compiler.calibrate.tiny import LEVELS, learned


def test_an_answer_has_its_outputs_where_the_call_had_them() -> None:
    one, two = torch.zeros(2), torch.ones(3)
    form = AnswerForm.of({"sample": (two, one)}, [one, two])
    assert form is not None
    new = [torch.full((2,), 5.0), torch.full((3,), 6.0)]
    assert form.made(new) == {"sample": (new[1], new[0])}


def test_what_is_not_made_of_the_outputs_alone_has_no_form() -> None:
    one = torch.zeros(2)
    assert AnswerForm.of((one, 3.0), [one]) is None
    assert AnswerForm.of(one + 1, [one]) is None
    assert AnswerForm.of((), [one]) is None


def test_decided_calls_do_not_go_to_the_route() -> None:
    harness, given = learned()
    exact = harness.record(given, (), lambda at, values: None)
    decided = {("main", step): exact.outputs["main", step][0] for step in (0, 1, 3)}
    asked: list[int] = []

    def route(stream: str, step: int, args: object) -> tuple[torch.Tensor, ...]:
        asked.append(step)
        return tuple(value.clone() for value in exact.outputs[stream, step])

    harness.through(given, route)  # shows the form of an answer
    assert asked == [*range(len(LEVELS))]
    asked.clear()
    sample = harness.through(given, route, decided)
    assert asked == [2, 4]
    assert exact.sample is not None
    assert torch.equal(sample, exact.sample)
