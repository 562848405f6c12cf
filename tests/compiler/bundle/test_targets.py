"""Targets by name: what there are, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from turbo4d.compiler.bundle.graphs import check_graph
from turbo4d.compiler.bundle.targets import TARGETS, refuse_settings, refuse_unable, target_of
from turbo4d.compiler.errors import LowerError
from turbo4d.runtime.errors import OptionError

from tests.compiler.bundle.networks import CopyTarget


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
