"""A pass that fails leaves a file and a command; the file repeats the failure, and only that."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from torch import fx
from turbo4d.compiler import dump
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.errors import GraphFileError, VerifyError
from turbo4d.compiler.graph_file import graph_json
from turbo4d.compiler.pipeline import HINT, run
from turbo4d.compiler.repeat import read_repeat, repeat_text
from turbo4d.compiler.show import graph_text
from turbo4d.compiler.verify import verify
from turbo4d.passes import FoldSingleKeyAttention, PassError, RecordSlot

from tests.passes.stream import make_stream
from tests.support import fork

FOLD, MISSING = FoldSingleKeyAttention(), RecordSlot("first", "nowhere")


@pytest.fixture
def stream() -> fx.GraphModule:
    return fork(capture_export(*make_stream()).module)


def look(gm: fx.GraphModule, report: object) -> None:
    verify(gm, inputs=[node.name for node in gm.graph.find_nodes(op="placeholder")])


def notes(error: BaseException) -> str:
    return error.__notes__[-1]


@pytest.mark.parametrize("on_path", [True, False])
def test_a_failing_pass_says_how_to_repeat_it(
    stream: fx.GraphModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_path: bool
) -> None:
    monkeypatch.setenv("TURBO4D_DUMP", str(tmp_path / "a folder"))
    monkeypatch.setattr(dump.shutil, "which", lambda name: name if on_path else None)
    monkeypatch.setattr(dump.sys, "executable", "python3")
    with pytest.raises(PassError, match=r"^record-slot at %nowhere") as caught:
        run(stream, (FOLD, MISSING), between=look, dump="some variant")
    path = tmp_path / "a folder" / "some variant" / "02.record-slot.repeat.json"
    command = "turbo4d" if on_path else "python3 -m turbo4d.tools.cli"
    assert notes(caught.value) == f"repeat with: {command} repeat {shlex.quote(str(path))}"
    repeat = read_repeat(path.read_text())
    assert repeat.pass_ == MISSING
    assert (
        (path.parent / "01.fold-single-key-attention.after.txt")
        .read_text()
        .endswith(graph_text(repeat.module.graph))
    )
    with pytest.raises(PassError) as again:
        repeat.run()
    assert str(again.value) == str(caught.value)


def test_a_graph_that_does_not_verify_is_repeatable_too(
    stream: fx.GraphModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that forgets an invariant: the file holds the graph before it, not what it left."""
    before = graph_text(stream.graph)

    def forgetful(self: object, gm: fx.GraphModule, report: Any) -> None:
        node = next(node for node in gm.graph.nodes if node.name == "add")
        del node.meta["val"]
        report.rewritten.append("%add")

    monkeypatch.setattr(FoldSingleKeyAttention, "rewrite", forgetful)
    monkeypatch.setenv("TURBO4D_DUMP", str(tmp_path))
    with pytest.raises(VerifyError, match=r"^I2 at %add") as caught:
        run(stream, (FOLD,), between=look, dump="x")
    path = tmp_path / "x" / "01.fold-single-key-attention.repeat.json"
    assert notes(caught.value).endswith(f"repeat {path}")
    repeat = read_repeat(path.read_text())
    assert graph_text(repeat.module.graph) == before
    with pytest.raises(VerifyError, match=r"^I2 at %add"):
        repeat.run()
    monkeypatch.undo()
    assert read_repeat(path.read_text()).run().rewritten  # mended


def test_without_a_dump_the_note_says_to_set_one(stream: fx.GraphModule) -> None:
    with pytest.raises(PassError) as caught:
        run(stream, (MISSING,), between=look, dump="x")
    assert (
        notes(caught.value)
        == HINT
        == ("set TURBO4D_DUMP=FOLDER to get a file and a command that repeat this pass alone")
    )


def test_a_graph_that_cannot_be_written_is_no_second_failure(
    stream: fx.GraphModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURBO4D_DUMP", str(tmp_path))
    next(node for node in stream.graph.nodes if node.name == "add").target = print
    with pytest.raises(PassError, match=r"^record-slot at %nowhere") as caught:
        run(stream, (MISSING,), between=look, dump="x")
    assert notes(caught.value).startswith("record-slot.repeat.json cannot be written: %add calls")


def test_the_log_tells_each_level(
    stream: fx.GraphModule, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[int] = []
    for level in ("0", "1", "2", "3"):
        monkeypatch.setenv("TURBO4D_LOG", level)
        run(fork(stream), (FOLD,), between=look, dump="v")
        lines.append(len(capsys.readouterr().err.splitlines()))
    assert lines[0] == 0
    assert lines[1] == 1
    assert lines[2] == 3  # one folded, one left alone, the summary
    assert lines[3] > 20
    monkeypatch.setenv("TURBO4D_LOG", "2")
    run(fork(stream), (FOLD,), between=look, dump="v")
    said = capsys.readouterr().err
    assert "v: fold-single-key-attention: %scaled_dot_product_attention left alone: 5 keys" in said
    assert "v: 1 passes rewrote 1 places in " in said


def changed(**change: Any) -> str:
    graph = graph_json(capture_export(*make_stream()).module)
    found = json.loads(repeat_text(RecordSlot("first", "linear"), graph))
    found["pass"].update(change)
    return json.dumps(found)


BAD = {
    "no JSON": (lambda: "{", "the file is no JSON: "),
    "nested without end": (lambda: "[" * 100_000, "the file is no JSON: maximum recursion"),
    "a list": (lambda: "[]", "the file has no format 'turbo4d repeat 1'; wanted one that a dump"),
    "another format": (lambda: '{"format": "x"}', "the file has no format 'turbo4d repeat 1'"),
    "no pass": (lambda: '{"format": "turbo4d repeat 1"}', "the file has no pass; wanted its name"),
    "unknown pass": (lambda: changed(name="print"), "pass 'print' is unknown to this turbo4d; it "),
    "other fields": (
        lambda: changed(fields={"region": "a", "valu": "b"}),
        "pass 'record-slot' has the fields ",
    ),
    "a field of another type": (
        lambda: changed(fields={**good_fields(), "region": 3}),
        "record-slot: region is 3; wanted str.",
    ),
}


def good_fields() -> dict[str, Any]:
    made = json.loads(changed())["pass"]["fields"]
    return {field.name: made[field.name] for field in fields(RecordSlot)}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused(case: str) -> None:
    make, start = BAD[case]
    with pytest.raises(GraphFileError) as caught:
        read_repeat(make())
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith(".")
