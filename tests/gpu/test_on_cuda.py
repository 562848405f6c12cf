"""What only a device shows: real CUDA graphs, the real kernel, and that no step waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from turbo4d.compiler.backend import turbo4d
from turbo4d.runtime import tiny_attention as operator
from turbo4d.runtime.session import session
from turbo4d.tools.bench.gpu_network import Work, call_of, levels_of, network, sample
from turbo4d.tools.bench.gpu_smoke import PROBES, probed
from turbo4d.tools.bench.gpu_smoke_cuda import ON_CUDA

from tests.runtime import test_gated_feed_forward as fed
from tests.runtime import test_token_attention as fused
from tests.runtime.test_tiny_attention import DTYPES, SHAPES, assert_rounded, drawn, reference

CUDA = torch.device("cuda")
WORK = Work("tiny", "cuda", "fp32", 4)


@contextmanager
def no_waiting() -> Iterator[None]:
    """An error wherever the host waits for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def compiled(**options: Any) -> Any:
    torch._dynamo.reset()

    def backend(gm: torch.fx.GraphModule, inputs: Any) -> Any:
        return turbo4d(gm, inputs, options=options)

    return torch.compile(network(WORK), backend=backend, fullgraph=True, dynamic=False)


def sampled(fast: Any) -> tuple[torch.Tensor, Any]:
    with session(fast, steps=WORK.steps, levels=levels_of(WORK)) as run:
        latent = sample(fast, WORK, lambda i, sigma: run.step(i))
        return latent, run.report()


@pytest.mark.parametrize("plan", ["exact", "balanced"])
@pytest.mark.parametrize("lowering", ["eager", "inductor", "triton-kernels"])
def test_recorded_samples_are_those_of_the_engines(plan, lowering):
    wanted, _ = sampled(compiled(plan=plan, lowering=lowering))
    fast = compiled(plan=plan, lowering=lowering, cuda_graphs=True)
    for _ in range(3):
        found, report = sampled(fast)
        assert not report["events"]
        assert (found - wanted).norm() <= 1e-5 * wanted.norm()


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_no_step_of_a_session_waits(cuda_graphs):
    fast = compiled(plan="balanced", lowering="eager", cuda_graphs=cuda_graphs)
    for _ in range(2):  # builds, warms up, records
        sampled(fast)
    call = call_of(WORK)
    with torch.no_grad(), session(fast, steps=WORK.steps, levels=levels_of(WORK)) as run:
        for step in range(WORK.steps):
            run.step(step)
            with no_waiting():
                fast(**call)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kernel_agrees_with_torch(shape, dtype):
    attend: Any = operator.tiny_attention
    for layout in ("images", "groups", "merged"):
        given = [each.to(CUDA) for each in drawn(shape, dtype, layout)]
        assert_rounded(attend(*given, 0.3), reference(given, 0.3), units=0.5)


@pytest.mark.parametrize("shape", fused.SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_from_norm_to_sum_agrees_with_torch(shape, dtype):
    attend: Any = fused.token_attention
    moved = [
        each.to(CUDA) if isinstance(each, torch.Tensor) else each
        for each in fused.drawn(shape, dtype, add="other")
    ]
    fused.assert_as_near(attend(*moved), moved, times=1.5)


@pytest.mark.parametrize("shape", fed.SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_feed_forward_from_norm_to_sum_agrees_with_torch(shape, dtype):
    rows: Any = fed.OPERATOR
    moved = [
        each.to(CUDA) if isinstance(each, torch.Tensor) else each
        for each in fed.drawn(shape, dtype)
    ]
    fed.assert_as_near(rows(*moved), moved, times=1.5)


@pytest.mark.parametrize("name", [*PROBES, *ON_CUDA])
def test_the_probe_of_torch_is_ok(name):
    found = probed(name, {**PROBES, **ON_CUDA}[name], CUDA)
    assert found["ok"], found["reason"]
