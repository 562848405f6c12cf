"""No test of bundles reads or fills the engine store of who runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compiler.bundle.built import built


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURBO4D_ENGINE_STORE", str(tmp_path / "store"))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the small network for ONNX Runtime, with its reference; not to be written to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TURBO4D_ENGINE_STORE", str(tmp_path_factory.mktemp("store")))
        return built(tmp_path_factory.mktemp("verified") / "bundle")
