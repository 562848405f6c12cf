"""A canonical graph is traced once: an equal capture finds it on disk, any other does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed
from turbo4d.compiler import capture, graph_store
from turbo4d.compiler.compat import trace
from turbo4d.compiler.errors import VerifyError
from turbo4d.compiler.show import graph_text

from tests.compiler.captures import build, capture_by_compile

Call = dict[str, Any]


class Small(nn.Module):
    """A forward with what its subclasses change."""

    factor = 2.0

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.linear(x)) * self.factor

    def act(self, x: Tensor) -> Tensor:
        return torch.nn.functional.gelu(x)


class Scaled(Small):
    factor = 2.5


class OtherAct(Small):
    def act(self, x: Tensor) -> Tensor:
        return torch.nn.functional.silu(x)


class Lifted(Small):
    def act(self, x: Tensor) -> Tensor:
        return x * torch.tensor([1.0, 0.1] * 4)


class Renamed(nn.Module):
    """The same computation, its weights under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.gelu(self.other(x)) * 2.0


@torch.compiler.allow_in_graph
def foreign_act(x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x)


class Foreign(Small):
    def act(self, x: Tensor) -> Tensor:
        return foreign_act(x)


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[object]:
    """What is traced, the store being an empty folder."""
    seen: list[object] = []

    def counted(module: Any, inputs: Any) -> Any:
        seen.append(module)
        return trace(module, inputs)

    monkeypatch.setattr(capture.compat, "trace", counted)
    monkeypatch.setenv(graph_store.VARIABLE, str(tmp_path))
    return seen


def call_of(width: int = 8, dtype: torch.dtype = torch.float32) -> Call:
    return {"x": torch.ones(4, width, dtype=dtype)}


@pytest.mark.parametrize("name", ["chain", "joint_dit"])
def test_a_stored_graph_is_the_traced_one(
    name: str, traces: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, call = build(name)
    first = capture_by_compile(module, call)
    again = capture_by_compile(module, call)
    assert len(traces) == 1
    one, other = first.capture, again.capture
    assert graph_text(other.module.graph, other.table) == graph_text(one.module.graph, one.table)
    assert (other.table, other.order, other.hints) == (one.table, one.order, one.hints)
    assert other.fingerprint == one.fingerprint
    for before, after in zip(one.module.graph.nodes, other.module.graph.nodes, strict=True):
        assert before.name == after.name
        assert before.meta.get("module") == after.meta.get("module")
        if isinstance(before.meta.get("val"), Tensor):
            assert before.meta["val"].stride() == after.meta["val"].stride()
    monkeypatch.setenv("TURBO4D_VERIFY", "full")
    capture_by_compile(module, call)
    assert len(traces) == 2


def test_a_constant_comes_back_to_the_bit(traces: list[object]) -> None:
    module = Lifted().eval()
    one, other = (capture_by_compile(module, call_of()).capture for _ in range(2))
    assert len(traces) == 1
    assert [*one.constants] == [*other.constants]
    assert all(torch.equal(one.constants[name], other.constants[name]) for name in one.constants)
    assert len(one.constants) == 1


OTHERS: list[Callable[[], tuple[nn.Module, Call]]] = [
    lambda: (Scaled(), call_of()),
    lambda: (OtherAct(), call_of()),
    lambda: (Renamed(), call_of()),
    lambda: (Small(16), call_of(16)),
    lambda: (Small().double(), call_of(dtype=torch.float64)),
    lambda: (Small(), {"x": torch.ones(8, 4).t()}),
    lambda: (Small(), {"x": torch.ones(5, 8)}),
]


@pytest.mark.parametrize("other", OTHERS)
def test_what_differs_is_traced(
    other: Callable[[], tuple[nn.Module, Call]], traces: list[object]
) -> None:
    capture_by_compile(Small().eval(), call_of())
    module, call = other()
    capture_by_compile(module.eval(), call)
    assert len(traces) == 2


@pytest.mark.parametrize("changed", ["tracing_state", "_code"])
def test_other_versions_and_other_code_trace_again(
    changed: str, traces: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Small().eval()
    capture_by_compile(module, call_of())
    monkeypatch.setattr(f"turbo4d.compiler.graph_key.{changed}", lambda: "another")
    capture_by_compile(module, call_of())
    assert len(traces) == 2


def test_what_a_graph_does_not_tell_is_not_stored(traces: list[object], tmp_path: Path) -> None:
    module = Foreign().eval()
    for _ in range(2):
        capture_by_compile(module, call_of())
    assert len(traces) == 2
    assert not [*tmp_path.iterdir()]


def changed(path: Path, old: str, new: str) -> None:
    """A stored graph as whoever edits it and knows the digest would write it."""
    text = path.read_text().partition("\n")[2].replace(old, new)
    path.write_text(f"{graph_store._head(text)}\n{text}")


@pytest.mark.parametrize("damage", ["", "{}", "turbo4d graph 2", "aten.gelu->os.system", "x->y z"])
def test_a_damaged_file_is_as_good_as_absent(
    damage: str, traces: list[object], tmp_path: Path
) -> None:
    module = Small().eval()
    whole = capture_by_compile(module, call_of()).capture
    [path] = tmp_path.iterdir()
    old, arrow, new = damage.partition("->")
    if arrow:
        changed(path, old, new)
    else:
        path.write_text(damage)
    again = capture_by_compile(module, call_of()).capture
    assert len(traces) == 2
    assert again.fingerprint == whole.fingerprint
    capture_by_compile(module, call_of())
    assert len(traces) == 2  # it was stored anew


def test_a_digit_that_a_disk_lost_is_found_out(traces: list[object], tmp_path: Path) -> None:
    """The graph would read as well with another number in it."""
    module = Small().eval()
    capture_by_compile(module, call_of())
    [path] = tmp_path.iterdir()
    whole = path.read_text()
    assert whole.count("2.0") == 1
    path.write_text(whole.replace("2.0", "3.0"))
    capture_by_compile(module, call_of())
    assert len(traces) == 2
    assert path.read_text() == whole


def test_a_graph_that_is_not_the_traced_one_is_found_out(
    traces: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Small().eval()
    capture_by_compile(module, call_of())
    [path] = tmp_path.iterdir()
    changed(path, "aten.gelu", "aten.silu")
    monkeypatch.setenv("TURBO4D_VERIFY", "full")
    with pytest.raises(BackendCompilerFailed) as caught:
        capture_by_compile(module, call_of())
    assert isinstance(caught.value.inner_exception, VerifyError)
    assert str(caught.value.inner_exception) == (
        f"the graph stored as {path.stem} is not the one that a trace gives; remove {tmp_path} and "
        "report the model."
    )


def test_the_oldest_go_where_all_are_too_much(
    traces: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture_by_compile(Small().eval(), call_of())
    [old] = tmp_path.iterdir()
    os.utime(old, (1, 1))
    monkeypatch.setattr(graph_store, "BOUND_BYTES", int(1.5 * old.stat().st_size))
    capture_by_compile(OtherAct().eval(), call_of())
    assert [path != old for path in tmp_path.iterdir()] == [True]


def test_where_the_store_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(graph_store.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert graph_store.store_folder() == tmp_path / "turbo4d" / "graphs"
    monkeypatch.setenv(graph_store.VARIABLE, "0")
    assert graph_store.store_folder() is None


def test_a_folder_that_cannot_be_written_is_said(
    traces: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(graph_store, "say", lambda level, text: said.append(text))
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv(graph_store.VARIABLE, str(blocked))
    capture_by_compile(Small().eval(), call_of())
    assert len(said) == 1
    assert said[0].startswith("the graph is not stored: ")
