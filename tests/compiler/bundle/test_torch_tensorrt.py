"""Target torch-tensorrt where it cannot be had: what is refused. The rest was not run."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from turbo4d.compiler.bundle.targets import target_of
from turbo4d.runtime.engines import torch_tensorrt
from turbo4d.runtime.errors import EngineError, OptionError

ABSENT = importlib.util.find_spec("torch_tensorrt") is None


@pytest.mark.skipif(not ABSENT, reason="wants a machine without torch-tensorrt")
def test_without_the_library_nothing_is_built() -> None:
    reason = "the package torch-tensorrt is not installed; install turbo4d[gpu]"
    assert target_of("torch-tensorrt").reasons() == (reason,)
    with pytest.raises(EngineError, match="is not installed"):
        torch_tensorrt.build(torch.export.export(torch.nn.Identity(), (torch.ones(1),)), ())


@pytest.mark.skipif(torch.cuda.is_available(), reason="wants a machine without a GPU")
def test_without_a_gpu_nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert "CUDA" in str(torch_tensorrt.why_not_here())


def test_what_it_does_not_know_is_refused() -> None:
    with pytest.raises(OptionError, match="choose 'torch-tensorrt:cuda'"):
        target_of("torch-tensorrt:sm89")
    with pytest.raises(OptionError, match="has no setting 'a'"):
        target_of("torch-tensorrt", {"a": "b"})
