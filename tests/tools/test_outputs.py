"""Outputs appear whole or not at all."""

import pytest
from turbo4d.tools.failures import CallError
from turbo4d.tools.outputs import output_file, output_folder


def ours(name):
    return name == "report.json"


def fill(out, force=False, text="new"):
    with output_folder(out, force=force, owned=ours) as folder:
        (folder / "report.json").write_text(text)


def test_folder_appears_with_its_parents(tmp_path):
    out = tmp_path / "a" / "b"
    fill(out)
    assert [entry.name for entry in out.iterdir()] == ["report.json"]
    assert [entry.name for entry in out.parent.iterdir()] == ["b"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_by_a_failure(tmp_path, failure):
    def fail():
        with output_folder(tmp_path / "a" / "b", force=False, owned=ours) as folder:
            (folder / "report.json").write_text("half")
            raise failure

    with pytest.raises(failure):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_kept(tmp_path):
    out = tmp_path / "out"
    fill(out, text="old")
    with pytest.raises(CallError) as refused:
        fill(out)
    assert str(refused.value) == f"--out '{out}' exists; name another folder, or add --force."
    assert (out / "report.json").read_text() == "old"


def test_force_replaces_what_turbo4d_wrote(tmp_path):
    out = tmp_path / "out"
    fill(out, text="old")
    fill(out, force=True)
    assert (out / "report.json").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_force_that_fails_keeps_the_old(tmp_path):
    out = tmp_path / "out"
    fill(out, text="old")
    with pytest.raises(RuntimeError), output_folder(out, force=True, owned=ours):
        raise RuntimeError
    assert (out / "report.json").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_force_refuses_a_folder_of_somebody_else(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").touch()
    with pytest.raises(CallError) as refused:
        fill(out, force=True)
    assert str(refused.value) == (
        f"--out '{out}' holds 'thesis.tex', which turbo4d did not write, so --force will not "
        "replace it; name another folder."
    )
    assert (out / "thesis.tex").exists()


def test_an_empty_folder_may_be_filled(tmp_path):
    fill(tmp_path / "out")
    (tmp_path / "out" / "report.json").unlink()
    fill(tmp_path / "out")
    assert (tmp_path / "out" / "report.json").read_text() == "new"


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    with pytest.raises(CallError) as refused:
        fill(out)
    assert str(refused.value) == (
        f"--out '{out}' cannot be written ('file' is not a folder); name a place you can write."
    )


def test_a_system_that_refuses(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    out = tmp_path / "out"
    with pytest.raises(CallError) as refused:
        fill(out)
    assert str(refused.value) == (
        f"--out '{out}' cannot be written (permission denied); name a place you can write."
    )


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(CallError, match="is not a folder"):
        fill(tmp_path / "out", force=True)


def test_a_file_appears_whole(tmp_path):
    out = tmp_path / "a" / "plan.json"
    with output_file(out, force=False) as partial:
        partial.write_text("{}")
        assert not out.exists()
    assert out.read_text() == "{}"
    with pytest.raises(CallError) as refused, output_file(out, force=False):
        pass
    assert str(refused.value) == f"--out '{out}' exists; name another file, or add --force."

    def fail():
        with output_file(out, force=True) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert out.read_text() == "{}"
    assert [entry.name for entry in out.parent.iterdir()] == ["plan.json"]
