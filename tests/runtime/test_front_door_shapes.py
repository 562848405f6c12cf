"""A batch that changes its size in a run: compiled once a size, and no slot is carried over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from turbo4d.compiler.backend import turbo4d as backend

from tests.compiler import foreign
from turbo4d import session

# Nearly all of the run passes in the second step, so `fast` computes the first and the third; of
# what is then reused, nothing is further from the third than that is from the first.
SIGMAS = [30.0, 29.9, *torch.logspace(-1.0, -1.6, 6).tolist()]

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


def watched(model: nn.Module, dynamic: bool | None, **options: Any) -> tuple[Any, list[Any]]:
    """A compiled model, and what the backend gave for each graph."""
    made: list[Any] = []

    def door(gm: fx.GraphModule, inputs: Sequence[Any]) -> Any:
        made.append(backend(gm, inputs, **options))
        return made[-1]

    return torch.compile(model, backend=door, fullgraph=True, dynamic=dynamic), made


def halves(call: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value[: len(value) // 2] for name, value in call.items()}


@pytest.mark.parametrize("dynamic", [False, None])
def test_a_new_batch_size_is_compiled_once_and_drops_the_slots(
    dynamic: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURBO4D_POISON", "1")
    model, call = foreign.build("multi_view")
    fast, made = watched(model, dynamic, plan="fast")
    sizes = [call, call, call, halves(call), halves(call), call, call, halves(call)]

    def sample(levels: Sequence[float] = SIGMAS) -> tuple[list[Tensor], list[Any]]:
        with session(fast, levels=levels) as run:
            outputs: list[Tensor] = []
            for step, (sigma, given) in enumerate(zip(levels, sizes, strict=True)):
                run.step(step)
                level = torch.full_like(given["sigma"], sigma)
                outputs.append(fast(**{**given, "sigma": level}))
        return outputs, [*run.report()["events"]]

    outputs, events = sample()
    assert len(made) == 2
    assert all(output.isfinite().all() for output in outputs)
    kinds = [(event["kind"], event["step"]) for event in events]
    changes = [event for event in events if event["kind"] == "slots-dropped"]
    assert changes[0]["message"] == (
        "torch compiled the model once more; the sample is (6, 4, 8, 8) float32 on cpu after "
        "(12, 4, 8, 8) float32 on cpu."
    )
    assert changes[0]["step"] == 3
    # After a change all is computed, then one value is held where two would be extrapolated.
    each = [("slots-dropped", 0), ("full-variant", 0), ("lower-order", 1)]
    assert kinds == [(kind, at + more) for at in (3, 5, 7) for kind, more in each][:-1]
    # What the plan would have reused was computed instead, right after each change.
    for step in (3, 5, 7):
        now = {**sizes[step], "sigma": torch.full_like(sizes[step]["sigma"], SIGMAS[step])}
        torch.testing.assert_close(outputs[step], model(**now), atol=2e-5, rtol=1e-5)
    again, events = sample()
    assert [(event["kind"], event["step"]) for event in events] == kinds
    assert all(torch.equal(a, b) for a, b in zip(again, outputs, strict=True))
    assert len(made) == 2


@pytest.mark.parametrize("dynamic", [False, None])
def test_without_a_session_every_size_is_right(dynamic: bool | None) -> None:
    model, call = foreign.build("multi_view")
    fast, made = watched(model, dynamic, plan="exact")
    for given in (call, halves(call), call, halves(call)):
        torch.testing.assert_close(fast(**given), model(**given), atol=2e-5, rtol=1e-5)
    assert len(made) == 2


class Repeats(nn.Module):
    """Its batch appears in arithmetic and in a slice, and as a number of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.product = nn.Linear(4, 4)

    def forward(self, x: Tensor, times: int) -> Tensor:
        half = x.shape[0] // 2
        mean = self.product(x).reshape(half, 2, 4).mean(1).repeat(2, 1)
        return mean * times + x.view(-1, 4)[: 2 * half] * x.shape[0]


def test_sizes_become_numbers_in_the_graph() -> None:
    model = Repeats().eval()
    fast, made = watched(model, None, plan="none")
    for count in (6, 8, 6, 10, 8):
        x = torch.randn(count, 4)
        assert torch.equal(fast(x, 3), model(x, 3))
    assert len(made) == 3


def test_an_integer_that_is_no_size_is_an_input_where_it_changes() -> None:
    """A step's number given to the model would be compiled anew at each step."""
    model = Repeats().eval()
    fast, made = watched(model, None, plan="none")
    x = torch.randn(6, 4)
    for times in (3, 4, 5, 6, 3):
        assert torch.equal(fast(x, times), model(x, times))
    assert len(made) == 2
