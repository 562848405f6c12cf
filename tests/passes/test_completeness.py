"""Every pass has tests, a golden, a row in the README, and a docstring of the house's form."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path

import pytest
from turbo4d.passes import ALL_PASSES, FoldSingleKeyAttention, Pass, ReuseRegion

from tests.support import GOLDEN
from turbo4d import passes

HERE = Path(__file__).parent
FOLDER = Path(passes.__file__).parent
README = (FOLDER / "README.md").read_text(encoding="utf-8")


def stem(pass_: type[Pass]) -> str:
    return pass_.__module__.rpartition(".")[2]


def test_all_passes_holds_every_pass_file() -> None:
    files = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "base", "compat"}
    assert {stem(pass_) for pass_ in ALL_PASSES} == files


@pytest.mark.parametrize("pass_", ALL_PASSES)
def test_names_agree(pass_: type[Pass]) -> None:
    assert pass_.name == stem(pass_).replace("_", "-")
    assert pass_.__name__ == "".join(part.title() for part in stem(pass_).split("_"))


@pytest.mark.parametrize("pass_", ALL_PASSES)
def test_it_is_a_frozen_dataclass(pass_: type[Pass]) -> None:
    assert is_dataclass(pass_)
    made = pass_(**{field.name: "a" for field in fields(pass_)})
    with pytest.raises(FrozenInstanceError):
        made.anything = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("pass_", ALL_PASSES)
def test_it_has_tests_of_four_kinds_a_golden_and_a_row(pass_: type[Pass]) -> None:
    tests = (HERE / f"test_{stem(pass_)}.py").read_text(encoding="utf-8")
    for kind in ("assert_rewrite(", "def test_refuses", "def test_idles", "def test_composes"):
        assert kind in tests, kind
    assert f'golden="{stem(pass_)}"' in tests
    assert (GOLDEN / f"{stem(pass_)}.txt").exists()
    assert f"| `{pass_.name}` | `{stem(pass_)}.py` |" in README


@pytest.mark.parametrize("pass_", ALL_PASSES)
def test_its_docstring_says_what_it_does(pass_: type[Pass]) -> None:
    text = inspect.getdoc(sys.modules[pass_.__module__]) or ""
    assert text.startswith(f"{pass_.name}: ")
    for part in ("rewrite:", "->", "Requires", "Ensures", "Error"):
        assert re.search(rf"^\s*{part}", text, re.MULTILINE), part


def test_goldens_belong_to_passes() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {stem(pass_) for pass_ in ALL_PASSES}


def test_a_fingerprint_tells_passes_and_options_apart() -> None:
    made = [
        ReuseRegion("a", "x", "slot_a"),
        ReuseRegion("b", "x", "slot_b"),
        FoldSingleKeyAttention(),
    ]
    assert len({pass_.fingerprint for pass_ in made}) == 3
    assert made[0].fingerprint == ReuseRegion("a", "x", "slot_a").fingerprint
