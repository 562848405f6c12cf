"""Target onnxruntime: what it says of an engine that was run, and of one that was not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from turbo4d.compiler.bundle import onnxruntime
from turbo4d.compiler.bundle.targets import target_of

from tests.compiler.bundle.test_aot_inductor import request


class Session:
    """Gives ones, whatever it is given."""

    def __init__(self, graph: Path, **_: Any) -> None:
        pass

    def __call__(self, inputs: list[Tensor]) -> list[Tensor]:
        return [torch.ones(2) for _ in range(1 + len(inputs))]


@pytest.mark.parametrize(
    ("given", "wanted", "executed", "error"),
    [
        ([torch.ones(2)], [torch.ones(2), torch.full((2,), 2.0)], True, 0.5),
        ([], [torch.full((2,), 2.0)], True, 0.5),  # a prologue of constants takes nothing
        ([], [], False, None),  # nothing was recorded
    ],
)
def test_an_engine_is_run_where_a_call_was_recorded(
    given: list[Tensor],
    wanted: list[Tensor],
    executed: bool,
    error: float | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnxruntime, "OnnxSession", Session)
    asked = dataclasses.replace(request(tmp_path), takes=(), given=given, wanted=wanted)
    made = target_of("onnxruntime").build(asked)
    assert (made.executed, made.error) == (executed, error)
