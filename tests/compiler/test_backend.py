"""The door of torch.compile: same numbers, no recompilation, one copy of the weights, clear errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from turbo4d.compiler.backend import CompiledDenoiser
from turbo4d.compiler.backend import turbo4d as backend
from turbo4d.compiler.errors import LowerError, NoSitesError
from turbo4d.runtime.errors import OptionError, PlanError
from turbo4d.runtime.runner import Runner

import turbo4d
from tests.compiler import foreign
from tests.compiler.denoisers import sv4d

SIGMAS = torch.logspace(2, -1, 20).tolist()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    with torch.no_grad():
        yield
    torch._dynamo.reset()


def compiled(model: nn.Module, **options: Any) -> Callable[..., Any]:
    return torch.compile(model, backend="turbo4d", fullgraph=True, options=options)


def watched(model: nn.Module, **options: Any) -> tuple[Callable[..., Any], list[CompiledDenoiser]]:
    """A compiled model, and what the backend returned for each graph."""
    made: list[CompiledDenoiser] = []

    def door(gm: torch.fx.GraphModule, inputs: Sequence[Any]) -> CompiledDenoiser:
        made.append(backend(gm, inputs, **options))
        return made[-1]

    return torch.compile(model, backend=door, fullgraph=True), made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["mini", "tiny", "nano"])
def test_plan_none_is_the_plain_module_to_the_bit(name: str, dtype: torch.dtype) -> None:
    model, call = sv4d(name, dtype)
    assert torch.equal(compiled(model, plan="none")(**call), model(**call))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", foreign.NETWORKS)
def test_plan_none_is_the_plain_foreign_module_to_the_bit(name: str, dtype: torch.dtype) -> None:
    model, call = foreign.build(name, dtype)
    assert torch.equal(compiled(model, plan="none")(**call), model(**call))


def test_plan_none_runs_what_is_no_denoiser() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
    x = torch.randn(3, 4)
    assert torch.equal(compiled(model, plan="none")(x), model(x))


def test_twenty_steps_neither_recompile_nor_break() -> None:
    model, call = sv4d("mini")
    assert torch._dynamo.explain(model)(**call).graph_break_count == 0
    torch._dynamo.reset()
    fast, made = watched(model, plan="fast")

    def sample() -> tuple[list[Tensor], dict[str, Any]]:
        outputs: list[Tensor] = []
        with turbo4d.session(fast, steps=20, levels=SIGMAS) as run:
            for step, sigma in enumerate(SIGMAS):
                run.step(step)
                now = {**call, "timesteps": torch.full_like(call["timesteps"], sigma)}
                outputs.append(fast(**now))
        return outputs, dict(run.report())

    first, _ = sample()
    torch.compiler.set_stance("fail_on_recompile")
    try:
        second, report = sample()
    finally:
        torch.compiler.set_stance("default")
    assert len(made) == 1
    assert sum(report["calls_by_variant"].values()) == 20
    assert len(report["calls_by_variant"]) > 2
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    now = {**call, "timesteps": torch.full_like(call["timesteps"], SIGMAS[0])}
    assert torch.equal(first[0], model(**now))
    assert not torch.equal(first[-1], first[0])


def test_weights_are_never_copied() -> None:
    """A weight written to after every variant was built is the one that every variant uses."""
    model, call = sv4d("mini")
    fast = compiled(model, plan="fast")
    for _ in range(2):
        with turbo4d.session(fast, steps=20, levels=SIGMAS) as run:
            for step in range(20):
                run.step(step)
                output = fast(**call)
            report = run.report()
        assert report["weights_bytes"] == sum(p.nbytes for p in model.parameters())
        for parameter in model.parameters():
            parameter.mul_(0.5)
    plain = compiled(model, plan="none")
    assert torch.equal(plain(**call), model(**call))
    assert not torch.equal(output, model(**call))


def test_several_compiled_models_stand_side_by_side() -> None:
    one, call = sv4d("mini")
    two, _ = sv4d("mini")
    for parameter in two.parameters():
        parameter.mul_(1.1)
    fast = [compiled(model, plan="exact") for model in (one, two)]
    for _ in range(2):
        for model, quick in zip((one, two), fast, strict=True):
            assert torch.equal(quick(**call), model(**call))


def test_two_graphs_of_one_module_each_have_a_runner() -> None:
    model, call = sv4d("mini")
    fast, made = watched(model, plan="exact")
    fast(**call)
    smaller = sv4d("mini", branches=1)[1]
    assert torch.equal(fast(**smaller), model(**smaller))
    assert len(made) == 2
    assert {type(each.call) for each in made} == {Runner}


def test_no_gradient_is_recorded() -> None:
    model, call = sv4d("mini")
    with torch.enable_grad():
        assert not compiled(model, plan="none")(**call).requires_grad


class NoAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.conv(x) * sigma.cos()[:, None, None, None]


def test_a_graph_without_attention_is_refused_by_type() -> None:
    """Not as torch's BackendCompilerFailed, whose type says nothing of the reason."""
    fast = compiled(NoAttention().eval())
    with pytest.raises(NoSitesError) as caught:
        fast(torch.randn(2, 4, 8, 8), torch.rand(2))
    assert str(caught.value).startswith("no attention depends on the sample 'x'; the graph has 0")
    assert caught.value.__notes__ == [
        "Compile the denoiser alone, with fullgraph=True, or set plan='none'."
    ]
    assert "backend=" not in str(caught.value)


OPTIONS = (
    "'adaptive', 'geometry', 'invariant', 'level_unit', 'levels', 'lowering', 'max_cache_bytes', "
    "'plan', 'regions', 'strict'"
)


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        (
            {"plane": "fast"},
            OptionError,
            f"option 'plane' is unknown; choose {OPTIONS}. Did you mean 'plan'?",
        ),
        ({"zzz": 1}, OptionError, f"option 'zzz' is unknown; choose {OPTIONS}."),
        (
            {"plan": 3},
            OptionError,
            "option 'plan' is 3; wanted a preset's name, the path of a plan, or a Plan.",
        ),
        (
            {"max_cache_bytes": True},
            OptionError,
            "option 'max_cache_bytes' is True; wanted a number of bytes.",
        ),
        ({"regions": "chain"}, OptionError, "option 'regions' is 'chain'; wanted a sequence of "
         "region kinds."),
        ({"adaptive": True}, OptionError, "option 'adaptive' is not built yet; leave it out."),
        (
            {"lowering": "eagre"},
            LowerError,
            "lowering 'eagre' is unknown; choose 'auto', 'eager'. Did you mean 'eager'?",
        ),
        (
            {"plan": "fats"},
            OptionError,
            "plan: 'fats' is no preset (balanced, exact, fast, none, quality) and no file.",
        ),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_sentence(
    options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    model, call = foreign.build(foreign.NETWORKS[-1])
    with pytest.raises(kind) as caught:
        compiled(model, **options)(**call)
    assert str(caught.value) == text


def test_a_mode_is_refused() -> None:
    model, call = sv4d("mini")
    fast = torch.compile(model, backend="turbo4d", mode="max-autotune")
    with pytest.raises(
        OptionError, match="^mode is 'max-autotune'; the turbo4d backend has options"
    ):
        fast(**call)


def test_options_may_be_given_directly() -> None:
    model, call = sv4d("mini")
    fast, made = watched(model, plan="exact", lowering="eager", strict=True)
    assert torch.equal(fast(**call), model(**call))
    assert made[0].analysis is not None


def test_the_errors_are_the_runtimes_own_types() -> None:
    """So that one `except` serves the compiled call and the runtime alike."""
    model, call = sv4d("mini")
    with pytest.raises(PlanError):
        compiled(model, plan="fast", levels=[1.0, 2.0])(**call)
