"""The kernels' library: compiled once, and what is broken or cannot be written is a sentence."""

from __future__ import annotations

import _ctypes
from pathlib import Path

import pytest
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.lower import row_kernels


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler whose every library is a copy of one that loads; a line for each call in `log`."""
    script = tmp_path / "c++"
    last = '"${@: -1}"'
    script.write_text(f"#!/bin/bash\ncp {_ctypes.__file__} {last}\necho x >> {tmp_path}/log\n")
    script.chmod(0o755)
    monkeypatch.setattr(row_kernels, "inductor_compiler", lambda: (str(script), tmp_path / "cache"))
    return script


def calls(compiler: Path) -> int:
    return len((compiler.parent / "log").read_text().splitlines())


def test_it_is_compiled_once(compiler: Path) -> None:
    assert row_kernels._load()._name == row_kernels._load()._name
    assert calls(compiler) == 1


@pytest.mark.parametrize("damage", [b"", b"\x7fELF", b"no library"])
def test_what_is_half_written_is_compiled_anew(compiler: Path, damage: bytes) -> None:
    path, fresh = row_kernels._compiled()
    assert fresh
    path.write_bytes(damage)
    assert row_kernels._load()._name == str(path)
    assert calls(compiler) == 2


def test_what_never_loads_is_a_sentence(compiler: Path) -> None:
    compiler.write_text('#!/bin/bash\necho broken > "${@: -1}"\n')
    with pytest.raises(LowerError, match=r"^the row kernels do not load: .*set TURBO4D_ROW_KERNEL"):
        row_kernels._load()


def test_a_folder_that_cannot_be_written_is_a_sentence(compiler: Path) -> None:
    (compiler.parent / "cache").write_text("")
    with pytest.raises(LowerError, match=r"or TORCHINDUCTOR_CACHE_DIR to a folder that can be wr"):
        row_kernels._load()


def test_a_compiler_that_is_not_there_is_a_sentence(compiler: Path) -> None:
    compiler.unlink()
    with pytest.raises(LowerError, match=r"^the row kernels do not load: .*No such file"):
        row_kernels._load()
