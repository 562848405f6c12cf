"""Bundles of two kinds: by hand, opened by the tests' own opener, and one that was built."""

from __future__ import annotations

import pytest
from turbo4d.runtime.bundle import ladder

from tests.compiler.denoisers import sv4d
from tests.runtime.bundle.handmade import open_text

LEVELS = (700.0, 300.0, 100.0, 8.0, 1.0, 0.1)


@pytest.fixture
def by_hand(monkeypatch):
    monkeypatch.setitem(ladder.OPENERS, "onnxruntime", open_text)


@pytest.fixture(scope="session")
def real_bundle(tmp_path_factory):
    """The smallest network, under a plan with every fallback, for ONNX Runtime on the CPU."""
    pytest.importorskip("onnx", reason="graphs are written with it")
    pytest.importorskip("onnxruntime", reason="graphs are run by it")
    from turbo4d.compiler.bundle.front_door import build

    folder = tmp_path_factory.mktemp("real") / "mini.turbo4d"
    model, call = sv4d("mini")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TURBO4D_ENGINE_STORE", str(folder.with_name("store")))
        build(
            model, (), call, plan="fast", levels=LEVELS, target="onnxruntime", out=folder,
            references=False, name="mini",
        )  # fmt: skip
    return folder
