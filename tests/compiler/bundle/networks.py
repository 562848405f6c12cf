"""One S-C-M module between two convolutions, taken apart once for the tests of this folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from turbo4d.compiler.bundle.assembly import Assembly, Kept
from turbo4d.compiler.bundle.build_report import BuildReport
from turbo4d.compiler.bundle.folder_lock import FolderLock
from turbo4d.compiler.bundle.memory import memory_need
from turbo4d.compiler.bundle.parts import Parts, take_apart
from turbo4d.compiler.bundle.targets import BuildRequest, Built
from turbo4d.compiler.bundle.wanted import Wanted
from turbo4d.compiler.bundle.writer import BundleWriter
from turbo4d.compiler.errors import LowerError

from tests.compiler import captures

SIGMAS = [80.0, 40.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5]


@cache
def network() -> tuple[nn.Module, dict[str, Any]]:
    return captures.build("chain")


@cache
def parts(form: Any = "variants") -> Parts:
    """Of a plan that reuses the core, whatever the presets would choose for the network."""
    module, call = network()
    wanted = Wanted("balanced", levels=SIGMAS, use=("core",), form=form)
    return take_apart(module, (), call, wanted)


class CopyTarget:
    """Its engines are their graphs' files, with a mark; it fails at those that it is told to."""

    name, device, suffix, keeps_graphs = "onnxruntime", "cpu", ".engine", True

    def __init__(self, mark: bytes = b"", fails: frozenset[str] = frozenset()) -> None:
        self.mark = mark
        self.fails = fails
        self.built: list[str] = []

    def reasons(self) -> tuple[str, ...]:
        return ()

    def why_not_in(self, dtypes: Collection[torch.dtype]) -> str | None:
        return None

    def settings(self) -> Mapping[str, str]:
        return {"mark": self.mark.hex()}

    def versions(self) -> Mapping[str, str]:
        return {}

    def build(self, request: BuildRequest) -> Built:
        if request.name in self.fails:
            raise LowerError(f"engine {request.name!r} is not taken.")
        self.built.append(request.name)
        path = request.scratch / "made"
        path.write_bytes(self.mark + request.graph.read_bytes())
        return Built(path, request.takes, request.gives, executed=False)


def assembled(folder: Path, target: Any, name: str = "", found: Parts | None = None) -> BuildReport:
    """A bundle without the capture, which takes longer than all the rest."""
    module, call = network()
    found = found or parts()
    folder.mkdir(exist_ok=True)
    kept = Kept(name, references=False)
    with FolderLock(folder), BundleWriter(folder) as writer:
        assembly = Assembly(module, (), call, found, target, kept, lambda text: None)
        return assembly.build(writer, memory_need(found), folder)


@contextmanager
def store_in(folder: Path) -> Iterator[Path]:
    """The engine store in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TURBO4D_ENGINE_STORE", str(folder))
        yield folder


def renamed(found: Parts, name: str) -> Parts:
    """The same parts with another plan's name, so that the manifest is another one."""
    return dataclasses.replace(found, plan=dataclasses.replace(found.plan, name=name))
