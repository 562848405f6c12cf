"""A forward that Dynamo cannot trace whole: several graphs, one session."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from turbo4d.compiler.errors import CaptureError, GeometryError
from turbo4d.runtime.levels import to_sigma

import turbo4d
from tests.foreign.broken import BrokenUNet, broken_unet
from tests.foreign.broken import __file__ as broken_file

GEOMETRY = {"batch": 2, "frames": 3, "height": 8, "width": 8}
# The line of broken.py at which a number is read, and the last piece begins.
READ = next(
    number
    for number, line in enumerate(Path(broken_file).read_text().splitlines(), 1)
    if ".item()" in line
)
LEVELS = [1000.0 - 50 * step for step in range(20)]


Denoiser = Callable[..., Any]


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def broken() -> Iterator[tuple[BrokenUNet, dict[str, Tensor], Denoiser]]:
    """The network, one call, and the network compiled; torch compiles its pieces once for all."""
    model, call = broken_unet()
    yield model, call, compiled(model)
    torch.compiler.reset()


def compiled(model: nn.Module, **options: Any) -> Denoiser:
    given: dict[str, Any] = {"geometry": GEOMETRY, **options}
    return torch.compile(model, backend="turbo4d", options=given)


def run_of(
    fast: Denoiser, call: dict[str, Tensor], samples: list[Tensor], plan: str = "balanced"
) -> tuple[list[Tensor], Any]:
    """What each step gives for its sample, and the session's report."""
    outputs: list[Tensor] = []
    levels = LEVELS[: len(samples)]
    with turbo4d.session(fast, levels=levels, level_unit="timestep", plan=plan) as run:
        for step, sample in enumerate(samples):
            run.step(step)
            outputs.append(fast(**at(step, call, sample)))
        return outputs, run.report()


def at(step: int, call: dict[str, Tensor], sample: Tensor) -> dict[str, Tensor]:
    """The call of a step."""
    return {**call, "sample": sample, "timestep": torch.tensor([LEVELS[step]])}


def test_plan_none_is_the_plain_module_to_the_bit(broken: Any) -> None:
    model, call, fast = broken
    outputs, _ = run_of(fast, call, [call["sample"]], "none")
    assert torch.equal(outputs[0], model(**at(0, call, call["sample"])))


def test_exact_is_the_plain_module_at_every_step(broken: Any) -> None:
    """What a later piece gets from an earlier one is not taken to stay the same."""
    model, call, fast = broken
    samples = [call["sample"] * (1 + step) for step in range(4)]
    outputs, report = run_of(fast, call, samples, "exact")
    for step, (output, sample) in enumerate(zip(outputs, samples, strict=True)):
        wanted = model(**at(step, call, sample))
        torch.testing.assert_close(output, wanted, atol=1e-5, rtol=1e-5)
    # Two pieces with regions make one step.
    assert report["calls_by_variant"] == {"compute": 8, "prologue": 2}


def test_without_a_session_the_first_piece_alone_follows_the_plan(broken: Any) -> None:
    """Only it is fed the level; of the others no step can be told, so they compute everything."""
    model, call, fast = broken
    runs: list[list[Tensor]] = [[], []]
    for outputs in runs:
        for step in range(6):
            outputs.append(fast(**at(step, call, call["sample"] * (1 + step))))
    for step, output in enumerate(runs[0]):
        wanted = model(**at(step, call, call["sample"] * (1 + step)))
        torch.testing.assert_close(output, wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(runs[1][0], runs[0][0])


def test_a_piece_without_regions_runs_as_it_is_and_says_so(broken: Any) -> None:
    _, call, fast = broken
    _, report = run_of(fast, call, [call["sample"]], "exact")
    assert [(event["kind"], event["message"]) for event in report["events"]] == [
        (
            "piece-passed-on",
            f"piece 'forward, from line {READ}' of the forward runs as it is: no attention depends "
            "on the sample 'joined'; the graph has 0 attentions in 2 nodes on its path.",
        )
    ]


def test_each_piece_follows_the_plan_on_slots_of_its_own(broken: Any) -> None:
    _, call, fast = broken
    _, report = run_of(fast, call, [call["sample"]] * 20)
    calls = report["calls_by_variant"]
    assert calls.pop("prologue") == 2
    assert sum(calls.values()) == 2 * 20
    # The first piece ends before the deep level, so it has chains alone; the other has a level.
    reused = {name.partition("+")[0].partition(".reuse")[0] for name in calls if "reuse" in name}
    assert reused == {"stack.0.chain", "level.1"}
    assert report["cache_peak_bytes"] > 0


def test_what_is_reused_in_a_piece_is_its_own_earlier_value() -> None:
    """The deep level's exit as the last one or two steps that computed it tell, all else as it is.

    Two that do not follow each other are extrapolated in ln(sigma), no further than they are apart.
    """
    model, call = broken_unet()
    made: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: Tensor) -> None:
        made.append(output)

    handle = model.up.register_forward_hook(keep)
    samples = [call["sample"] + 0.1 * step for step in range(20)]
    for step, sample in enumerate(samples):
        model(**at(step, call, sample))
    handle.remove()
    outputs, report = run_of(compiled(model, regions=["level"]), call, samples)
    places = [math.log(to_sigma(level, "timestep")) for level in LEVELS]
    computed: list[int] = []
    orders: list[int] = []
    for step, sample in enumerate(samples):
        now = at(step, call, sample)
        if torch.allclose(outputs[step], _with_deep(model, now, made[step]), atol=1e-5, rtol=1e-5):
            computed.append(step)
            continue
        before, last = computed[-2:] if len(computed) > 1 else (computed[-1], computed[-1])
        held, beyond = places[before] - places[last], places[last] - places[step]
        orders.append(int(last - before > 1 and beyond < 1.01 * held))
        change = (beyond / held) * (made[last] - made[before]) if orders[-1] else 0
        stale = _with_deep(model, now, made[last] + change)
        torch.testing.assert_close(outputs[step], stale, atol=1e-5, rtol=1e-5)
    assert {*orders} == {0, 1}
    assert len(orders) == report["calls_by_variant"]["level.1.reuse"] > 5
    first = report["events"][0]["message"]
    assert first.endswith("it has no region of kind 'level'.")


def _with_deep(model: BrokenUNet, call: dict[str, Tensor], deep: Tensor) -> Tensor:
    handle = model.up.register_forward_hook(lambda module, args, output: deep)
    try:
        return model(**call)
    finally:
        handle.remove()


def test_strict_refuses_a_piece_without_regions() -> None:
    model, call = broken_unet()
    with pytest.raises(
        CaptureError, match=rf"^piece 'forward, from line {READ}' of the forward has"
    ):
        compiled(model, plan="exact", strict=True)(**call)


def test_geometry_that_the_first_piece_contradicts_is_an_error() -> None:
    model, call = broken_unet()
    with pytest.raises(GeometryError, match="batch=4 does not fit the sample 'sample' of 6 images"):
        compiled(model, geometry={"batch": 4})(**call)


class _Inner(nn.Module):
    """A deep level with a break before it."""

    def __init__(self, low: nn.Module) -> None:
        super().__init__()
        self.low = low

    def forward(self, hidden: Tensor, emb: Tensor, text: Tensor) -> Tensor:
        print(end="")
        return self.low(hidden, emb, text)


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, _ = broken_unet()
        self.inner = _Inner(self.net.low)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        emb = self.net.time(timestep[:, None].sin() * torch.ones(6, 16))
        hidden = self.net.down(self.net.first(sample))
        for _ in range(2):
            hidden = self.inner(hidden, emb, text)
        return self.net.last(self.net.up(hidden))


def test_a_piece_that_runs_twice_in_a_step_computes_its_second_call() -> None:
    model, (_, call) = _Twice().eval(), broken_unet()
    outputs, report = run_of(compiled(model), call, [call["sample"]] * 20)
    for step in (0, 19):
        wanted = model(**at(step, call, call["sample"]))
        torch.testing.assert_close(outputs[step], wanted, atol=1e-5, rtol=1e-5)
    [repeated] = [e["message"] for e in report["events"] if e["kind"] == "repeated-piece"]
    assert repeated.endswith("all its calls but the first were computed in full.")
    calls = report["calls_by_variant"]
    assert calls["compute"] >= 20
    assert sum(count for name, count in calls.items() if "reuse" in name) > 5
