"""Targets by name: what there are, and what is refused."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from turbo4d.compiler.bundle.graphs import check_graph
from turbo4d.compiler.bundle.parts import Parts, take_apart
from turbo4d.compiler.bundle.targets import (
    TARGETS,
    refuse_dtypes,
    refuse_settings,
    refuse_unable,
    target_of,
)
from turbo4d.compiler.bundle.wanted import Wanted
from turbo4d.compiler.errors import LowerError
from turbo4d.runtime.errors import OptionError

from tests.compiler.bundle.networks import SIGMAS, CopyTarget, assembled, network


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_every_target_is_there(name: str) -> None:
    target = target_of(name)
    assert target.name in TARGETS
    assert target.device
    assert target.suffix.startswith(".")
    assert all(isinstance(reason, str) for reason in target.reasons())


@pytest.mark.parametrize(
    ("spelled", "settings", "said"),
    [
        ("onnxruntime:tpu", {}, "target 'onnxruntime:tpu' is unknown; choose 'onnxruntime:cpu', "
         "'onnxruntime:cuda', 'onnxruntime:tensorrt', 'onnxruntime:tensorrt-rtx'."),
        ("onnxruntime", {"weight": "shared"},
         "target 'onnxruntime' has no setting 'weight'; there are: 'weights'."),
        ("onnxruntime", {"weights": "twice"},
         "target 'onnxruntime': setting weights is 'twice'; choose 'packed' or 'shared'."),
    ],
)  # fmt: skip
def test_what_a_target_has_not_is_refused(
    spelled: str, settings: dict[str, str], said: str
) -> None:
    with pytest.raises(OptionError) as caught:
        target_of(spelled, settings)
    assert str(caught.value) == said


def test_a_target_without_settings_says_so() -> None:
    with pytest.raises(OptionError) as caught:
        refuse_settings("copy", {"a": "b"}, {})
    assert str(caught.value) == "target 'copy' has no setting 'a'; there are: none."


def test_what_cannot_be_built_here_is_refused() -> None:
    refuse_unable(CopyTarget(), ())
    with pytest.raises(LowerError) as caught:
        refuse_unable(CopyTarget(), ("the package onnx is not installed",))
    assert str(caught.value) == (
        "target 'onnxruntime:cpu' cannot be built here: the package onnx is not installed."
    )


def test_a_graph_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    make = onnx.helper
    sides = [make.make_tensor_value_info(name, 1, [3]) for name in ("a", "b")]
    graph = make.make_graph([make.make_node("Concat", ["a", "a"], ["b"], axis=0)], "g",
                            sides[:1], sides[1:])  # fmt: skip
    opset = [make.make_opsetid("", 20)]
    onnx.save(make.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "g.onnx")
    with pytest.raises(
        LowerError, match=r"^engine 'g' was written as an ONNX graph that its check"
    ):
        check_graph("engine 'g'", tmp_path / "g.onnx")


@pytest.mark.parametrize(
    ("spelled", "dtype", "reason"),
    [
        ("onnxruntime:cpu", torch.bfloat16, "ONNX Runtime has no CPU kernels for bfloat16"),
        ("triton:cpu", torch.bfloat16, "ONNX Runtime has no CPU kernels for bfloat16"),
        ("tensorrt-rtx:sm75", torch.bfloat16, "sm75 has no bfloat16, which came with sm80"),
        ("onnxruntime:cuda", torch.bfloat16, None),
        ("onnxruntime:cpu", torch.float16, None),
        ("tensorrt-rtx:sm75", torch.float16, None),
        ("tensorrt-rtx:sm120", torch.bfloat16, None),
        ("jetson-orin", torch.bfloat16, None),
        ("torch-tensorrt", torch.bfloat16, None),
        ("aot-inductor:cpu", torch.bfloat16, None),
    ],
)  # fmt: skip
def test_a_dtype_that_a_target_does_not_compute_in_is_refused(
    spelled: str, dtype: torch.dtype, reason: str | None
) -> None:
    target = target_of(spelled)
    if reason is None:
        refuse_dtypes(target, {torch.float32, dtype})
        return
    with pytest.raises(LowerError) as caught:
        refuse_dtypes(target, {torch.float32, dtype})
    assert str(caught.value) == (
        f"target '{target.name}:{target.device}' cannot be built in this dtype: {reason}; build in "
        "float32 or float16, or for another target."
    )


@cache
def odd_parts() -> Parts:
    """Of a network with an operator that has no ONNX form, in a module of its own."""

    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.digamma(x)

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain, self.tail = network()[0], torch.nn.Sequential(Odd())

        def forward(self, x: torch.Tensor, **others: Any) -> torch.Tensor:
            return self.tail(self.plain(x, **others))

    wanted = Wanted("none", levels=SIGMAS, geometry={"views": 2, "frames": 3})
    return take_apart(Whole().eval(), (), network()[1], wanted)


@pytest.mark.parametrize("spelled", [*sorted({*TARGETS} - {"tensorrt-rtx"}), "tensorrt-rtx:sm89"])
def test_an_operator_that_no_graph_takes_is_named(spelled: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    with pytest.raises(LowerError) as caught:
        assembled(tmp_path / "bundle", target_of(spelled), found=odd_parts())
    assert str(caught.value) == (
        "engine 'compute' is no ONNX graph: aten.digamma.default has no ONNX form here (%digamma "
        "in module 'tail.0'; no pass removes it; write it otherwise in the model: whatever its "
        "target, a bundle's graphs are ONNX)."
    )
