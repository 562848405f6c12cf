"""`import turbo4d` is light, hands out its public names when asked, and refuses any other."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import turbo4d

SOURCE = Path(turbo4d.__file__)
COMPILING = ["torch._dynamo", "torch._inductor", "turbo4d.compiler", "turbo4d.passes"]


def loaded_after(statement: str, modules: list[str]) -> list[str]:
    """Which of the modules a fresh interpreter has loaded once it has run the statement."""
    report = f"import json, sys; print(json.dumps([m for m in {modules!r} if m in sys.modules]))"
    program = f"{statement}\n{report}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(done.stdout)


def test_import_loads_nothing_else() -> None:
    heavy = ["torch", "numpy", "turbo4d.runtime", "turbo4d.models", "turbo4d.tools", *COMPILING]
    assert loaded_after("import turbo4d", heavy) == []


@pytest.mark.parametrize(
    "statement", ["turbo4d.load", "turbo4d.session", "turbo4d.Plan", "import turbo4d.runtime"]
)
def test_serving_names_load_no_compiler(statement: str) -> None:
    assert loaded_after(f"import turbo4d; {statement}", COMPILING) == []


def test_the_probe_sees_a_loaded_module() -> None:
    assert loaded_after("import turbo4d.passes", COMPILING) == ["turbo4d.passes"]


@pytest.mark.parametrize("name", sorted(set(turbo4d.__all__) - {"__version__", "models"}))
def test_a_public_name_comes_from_its_home(name: str) -> None:
    thing = getattr(turbo4d, name)
    assert callable(thing)
    assert thing.__module__ == turbo4d._HOME[name]
    assert name in dir(turbo4d)


def test_models_is_the_module() -> None:
    assert turbo4d.models.__name__ == "turbo4d.models"


def test_an_unknown_name_is_refused_in_the_usual_words() -> None:
    with pytest.raises(AttributeError, match=r"^module 'turbo4d' has no attribute 'sesion'$"):
        turbo4d.__getattr__("sesion")


def test_type_checkers_see_the_names_that_exist() -> None:
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == turbo4d._HOME
    assert set(turbo4d.__all__) == {*seen, "__version__"}
