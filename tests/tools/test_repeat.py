"""`turbo4d repeat`: the three exit statuses, and what each prints."""

import json
import shlex

import pytest
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.graph_file import graph_json
from turbo4d.compiler.pipeline import run
from turbo4d.compiler.repeat import repeat_text
from turbo4d.passes import FoldSingleKeyAttention, PassError, RecordSlot
from turbo4d.tools.cli import main
from turbo4d.tools.failures import remedies

from tests.passes.stream import make_stream


@pytest.fixture(scope="module")
def module():
    return capture_export(*make_stream()).module


def test_a_pass_that_now_succeeds(module, tmp_path, capsys):
    path = tmp_path / "x.repeat.json"
    path.write_text(repeat_text(FoldSingleKeyAttention(), graph_json(module)))
    assert main(["repeat", str(path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(
        "fold-single-key-attention succeeds on this graph: 1 places rewritten, 1 left alone, "
    )
    assert main(["repeat", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["file", "pass", "rewritten", "skipped", "erased"]
    assert found["pass"] == "FoldSingleKeyAttention()"
    assert found["skipped"] == [["%scaled_dot_product_attention", "5 keys"]]


def test_a_pass_that_fails_again(module, tmp_path, capsys, monkeypatch):
    """The file, and the command in the note, are those that the failure itself left."""
    monkeypatch.setenv("TURBO4D_DUMP", str(tmp_path))
    with pytest.raises(PassError) as caught:
        run(module, (RecordSlot("first", "nowhere"),), between=lambda *_: None, dump="d")
    [line] = remedies(caught.value)
    words = shlex.split(line)
    words = words[words.index("repeat", 2) :]  # after "repeat with: turbo4d", or our Python's path
    assert main(words) == 1
    assert capsys.readouterr().err == f"turbo4d: {caught.value}\n"


def test_a_bad_file(tmp_path, capsys):
    path = tmp_path / "x.json"
    assert main(["repeat", str(path)]) == 2
    assert capsys.readouterr().err == f"turbo4d: {path}: no such file or directory.\n"
    path.write_text("{}")
    assert main(["repeat", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"turbo4d: {path}: the file has no format 'turbo4d repeat 1'; wanted one that a dump "
        "wrote.\n"
    )
    path.write_bytes(b"\xff\xfe\xfa")
    assert main(["repeat", str(path)]) == 2
    assert capsys.readouterr().err == (f"turbo4d: {path}: the file is no JSON: it is not UTF-8.\n")


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as left:
        main(["repeat", "--help"])
    assert left.value.code == 0
    assert "example: turbo4d repeat " in capsys.readouterr().out


def test_a_failing_command_prints_the_command_that_repeats_the_pass(
    monkeypatch, tmp_path, capsys, module
):
    """Whatever command meets the failure: its own sentence, then how to repeat."""
    from turbo4d.tools import explain

    def fails(args):
        run(module, (RecordSlot("first", "nowhere"),), between=lambda *_: None, dump="d")

    monkeypatch.setattr(explain, "run", fails)
    monkeypatch.setenv("TURBO4D_DUMP", str(tmp_path))
    assert main(["explain", "--model", "tiny"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("turbo4d: record-slot at %nowhere (first): ")
    assert second.startswith("repeat with: ")
    assert second.endswith(f"repeat {tmp_path}/d/01.record-slot.repeat.json")
    monkeypatch.delenv("TURBO4D_DUMP")
    assert main(["explain", "--model", "tiny"]) == 1
    assert capsys.readouterr().err.splitlines()[1].startswith("set TURBO4D_DUMP=FOLDER ")
