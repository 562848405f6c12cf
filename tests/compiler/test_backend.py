"""The door of torch.compile: same numbers, no recompilation, one copy of weights, clear errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from turbo4d.compiler.backend import CompiledDenoiser
from turbo4d.compiler.backend import turbo4d as backend
from turbo4d.compiler.errors import LowerError, NoSitesError
from turbo4d.runtime.errors import OptionError
from turbo4d.runtime.runner import Runner

import turbo4d
from tests.compiler import foreign
from tests.compiler.denoisers import sv4d

SIGMAS = torch.logspace(2, -1, 20).tolist()


pytestmark = pytest.mark.usefixtures("fresh_dynamo")


def compiled(model: nn.Module, **options: Any) -> Callable[..., Any]:
    return torch.compile(model, backend="turbo4d", fullgraph=True, options=options)


def watched(model: nn.Module, **options: Any) -> tuple[Callable[..., Any], list[CompiledDenoiser]]:
    """A compiled model, and what the backend returned for each graph."""
    made: list[CompiledDenoiser] = []

    def door(gm: fx.GraphModule, inputs: Sequence[Any]) -> CompiledDenoiser:
        denoiser = backend(gm, inputs, **options)
        assert isinstance(denoiser, CompiledDenoiser)
        made.append(denoiser)
        return denoiser

    # A second shape would otherwise be compiled for every shape, which capture refuses.
    return torch.compile(model, backend=door, fullgraph=True, dynamic=False), made


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("tiny", torch.float32), ("tiny", torch.bfloat16), ("nano", torch.float32)],
)
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
    calls = report["calls_by_variant"]
    assert calls.pop("prologue") == 1
    assert sum(calls.values()) == 20
    assert len(calls) >= 2
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    now = {**call, "timesteps": torch.full_like(call["timesteps"], SIGMAS[0])}
    torch.testing.assert_close(first[0], model(**now), atol=1e-5, rtol=1e-5)
    assert not torch.equal(first[-1], first[0])


def test_weights_are_never_copied() -> None:
    """A weight written to after every variant was built is the one that every variant uses."""
    model, call = foreign.build("multi_view")
    fast = compiled(model, plan="fast")
    # Without cross-attention, its norm is never called.
    idle = ("camera.norms.1.", "motion.norms.1.")
    used = [p for name, p in model.named_parameters() if not name.startswith(idle)]
    firsts: list[Tensor] = []
    for _ in range(2):
        with turbo4d.session(fast, steps=20, levels=SIGMAS) as run:
            for step in range(20):
                run.step(step)
                output = fast(**call)
                firsts += [output] if step == 0 else []
            report = run.report()
        assert torch.equal(firsts[-1], model(**call))
        assert report["weights_bytes"] == sum(p.nbytes for p in used)
        assert len(report["calls_by_variant"]) > 1
        for parameter in model.parameters():
            parameter.mul_(0.5)
    assert not torch.equal(*firsts)


def test_several_compiled_models_stand_side_by_side() -> None:
    one, call = foreign.build("multi_view")
    two, _ = foreign.build("multi_view")
    for parameter in two.parameters():
        parameter.mul_(1.1)
    fast = [compiled(model, plan="exact") for model in (one, two)]
    for _ in range(2):
        for model, quick in zip((one, two), fast, strict=True):
            assert torch.equal(quick(**call), model(**call))


def test_each_graph_of_a_module_has_its_runner() -> None:
    model, call = foreign.build("multi_view")
    fast, made = watched(model, plan="exact", lowering="eager", strict=True)
    fast(**call)
    half = {name: value[: len(value) // 2] for name, value in call.items()}  # type: ignore[arg-type]
    assert torch.equal(fast(**half), model(**half))
    assert len(made) == 2
    assert {type(each.call) for each in made} == {Runner}
    assert [each.analysis and each.analysis.geometry.batch for each in made] == [2, 1]


def test_no_gradient_is_recorded() -> None:
    model, call = foreign.build("multi_view")
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
    "'adaptive', 'conditional', 'cuda_graphs', 'fixed_slots', 'geometry', 'invariant', "
    "'keep_memory', 'level_unit', 'levels', "
    "'lowering', 'max_cache_bytes', 'merge_projections', 'nonfinite', 'offload', 'plan', "
    "'regions', 'strict'"
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
        ({"adaptive": {"cieling": 1}}, OptionError, "adaptive: 'cieling' is unknown; choose from "
         "ceiling, hysteresis, min_refresh, power."),
        (
            {"lowering": "eagre"},
            LowerError,
            "lowering 'eagre' is unknown; choose 'auto', 'eager', 'inductor', 'native', "
            "'onnxruntime', 'triton-kernels'. Did you mean 'eager'?",
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
    """Before anything is captured."""
    with pytest.raises(kind) as caught:
        backend(fx.GraphModule({}, fx.Graph()), [], options=options)
    assert str(caught.value) == text


def test_a_mode_is_refused() -> None:
    with pytest.raises(OptionError) as caught:
        backend(fx.GraphModule({}, fx.Graph()), [], mode="max-autotune")
    assert str(caught.value) == (
        "mode is 'max-autotune'; the turbo4d backend has options, no modes."
    )


def test_plan_none_in_a_session_runs_what_is_no_denoiser_and_says_so() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    model, x = Plain().eval(), torch.randn(2, 4)
    fast = compiled(model, plan="none")
    with turbo4d.session(fast, levels=SIGMAS) as run:
        for step in range(len(SIGMAS)):
            run.step(step)
            assert torch.equal(fast(x), model(x))
    [event] = run.report()["events"]
    assert event["kind"] == "piece-passed-on"
    assert str(event["message"]).startswith("the forward runs as it is: ")
