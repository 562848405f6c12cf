"""Freed memory stays with the process where it is asked to, and goes back where it is not."""

from __future__ import annotations

import subprocess
import sys

import pytest
from turbo4d.runtime import host_memory

CHILD = """
import os, sys, torch
from turbo4d.runtime.host_memory import keep_freed_memory
if sys.argv[1] == "keep" and keep_freed_memory() is not None:
    sys.exit(3)
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before = resident()
held = [torch.empty(5 << 20).zero_() for _ in range(8)]  # of 20 MiB each
del held
print((resident() - before) >> 20)
"""


def left_behind(how: str) -> int:
    words = [sys.executable, "-c", CHILD, how]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("the C library is not glibc")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_kept_memory_stays_with_the_process() -> None:
    assert left_behind("keep") >= 160
    assert left_behind("leave") < 80  # else this test could not fail


def test_where_there_is_no_such_setting_the_reason_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TURBO4D_LOG", "1")
    monkeypatch.setattr(host_memory.sys, "platform", "darwin")
    assert host_memory.keep_freed_memory() == "it is a setting of glibc, and this is 'darwin'"
    assert "keep_memory is without effect: it is a setting of glibc" in capsys.readouterr().err
