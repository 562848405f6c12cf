"""The bounds are the derivation's, right engines meet them, and wrong ones do not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from turbo4d.compiler.bundle.tolerances import relative_error, run_tolerance, unit_roundoff
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.lower.onnx_export import variant_outputs, write_graph
from turbo4d.compiler.lower.onnx_weights import WeightFile
from turbo4d.compiler.specialise import specialise_capture
from turbo4d.runtime.action import Action
from turbo4d.runtime.engines.onnxruntime import OnnxSession
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.bundle.networks import parts

onnx = pytest.importorskip("onnx", reason="turbo4d[cpu] is not installed")
pytest.importorskip("onnxruntime", reason="turbo4d[cpu] is not installed")


def test_the_bounds_are_a_few_roundings() -> None:
    units = {dtype: relative_error(dtype) / unit_roundoff(dtype) for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16,
    )}  # fmt: skip
    # 2 sqrt(2) 0.41 sqrt(256); sqrt(4096 / 16) times that where sums round too.
    assert units[torch.float16] == pytest.approx(18.55, abs=0.01)
    assert units[torch.bfloat16] == units[torch.float16]
    assert units[torch.float32] == pytest.approx(16 * 18.55, abs=0.2)
    assert units[torch.float64] == pytest.approx(units[torch.float32])
    assert relative_error(torch.float16) == pytest.approx(9.06e-3, rel=1e-2)
    assert relative_error(torch.float32, angle=1000.0) > 9 * relative_error(torch.float32)


def test_what_does_not_round_has_no_bound() -> None:
    with pytest.raises(LowerError) as caught:
        relative_error(torch.int64)
    assert str(caught.value) == "torch.int64 does not round; compare its values for equality."


class Tower(nn.Module):
    """Residual blocks, one after the other, each a norm, a gated product and its way back."""

    def __init__(self, depth: int = 24, channels: int = 64) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(depth))
        self.wide = nn.ModuleList(nn.Linear(channels, 2 * channels) for _ in range(depth))
        self.back = nn.ModuleList(nn.Linear(2 * channels, channels) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for norm, wide, back in zip(self.norms, self.wide, self.back, strict=True):
            x = x + back(nn.functional.gelu(wide(norm(x))))
        return x


def tower(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tower().eval().requires_grad_(False).to(dtype), torch.randn(32, 64).to(dtype)


def off_by(dtype: torch.dtype, folder: Path, fault: str = "") -> float:
    """How far ONNX Runtime is from torch, with a fault put into the graph."""
    module, given = tower(dtype)
    capture = capture_export(module, (given,))
    variant = specialise_capture(capture, (), None, VariantKey((), (), exact=False))
    held = {row.name: capture.weights[row.target] for row in capture.table if row.kind == "weight"}
    weights = WeightFile(folder / "weights.bin")
    path = write_graph(
        "tower", variant.module, held, variant_outputs(variant), folder / "graph.onnx", weights
    ).path
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if fault == "gelu" and node.op_type == "Gelu":
                attribute.s = b"tanh"
            if fault == "epsilon" and attribute.name == "epsilon":
                attribute.f = 0.1
    path.write_bytes(model.SerializeToString())
    (got,), wanted = OnnxSession(path, threads=1)([given]), module(given)
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_right_engine_is_within_and_a_wrong_one_is_not(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    bound = relative_error(dtype)
    assert off_by(dtype, tmp_path) < bound
    assert off_by(dtype, tmp_path, "epsilon") > bound
    if dtype == torch.float32:  # the two forms of gelu differ by less than float16 can tell
        assert off_by(dtype, tmp_path, "gelu") > bound


def test_what_a_run_may_be_off_follows_from_its_plan() -> None:
    plan, one = parts().plan, relative_error(torch.float32)
    assert run_tolerance(torch.float32, plan) == 2 * one
    row = {"core": Action("reuse", mix=(-1.5, 2.0))}
    streams = {"main": (*plan.streams["main"][:-1], row)}
    fitted = dataclasses.replace(plan, streams=streams)
    assert run_tolerance(torch.float32, fitted) == pytest.approx(4.5 * one)
