"""What pip installs is what the folders hold: packages, data, entry points, dependencies."""

from __future__ import annotations

import ast
import sys
import tomllib
from fnmatch import fnmatch
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

import turbo4d

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
FOLDERS: dict[str, str] = {"turbo4d": "turbo4d", **SETUPTOOLS["package-dir"]}
# Import name where it is not the distribution's name.
IMPORTED_AS = {"pillow": "PIL"}


def names(requirements: list[str]) -> set[str]:
    """The import names of requirement strings: `torch>=2.11` -> torch."""
    bare = {r.split("[")[0].split(">")[0].split("=")[0].strip() for r in requirements}
    return {IMPORTED_AS.get(name, name).replace("-", "_") for name in bare}


def test_every_package_is_listed() -> None:
    held = {
        ".".join([package, *init.parent.relative_to(ROOT / folder).parts])
        for package, folder in FOLDERS.items()
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert sorted(held) == SETUPTOOLS["packages"]


def test_every_module_is_in_a_package() -> None:
    strays = [
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS.values()
        for path in (ROOT / folder).rglob("*.py")
        if not (path.parent / "__init__.py").exists()
    ]
    assert strays == []


def test_every_weights_file_is_shipped() -> None:
    patterns = SETUPTOOLS["package-data"]["turbo4d.models"]
    held = [path.relative_to(ROOT / "models") for path in (ROOT / "models/weights").rglob("*.*")]
    missed = [path.as_posix() for path in held if not any(fnmatch(str(path), p) for p in patterns)]
    assert missed == []


def test_the_type_checkers_links_lead_to_the_folders() -> None:
    links = {path.name: path.resolve() for path in (ROOT / "typings/turbo4d").iterdir()}
    expected = {package.rpartition(".")[2]: ROOT / folder for package, folder in FOLDERS.items()}
    del expected["turbo4d"]
    files = {name: ROOT / "turbo4d" / name for name in ("__init__.py", "py.typed")}
    assert links == {name: path.resolve() for name, path in {**expected, **files}.items()}


def test_version_is_the_projects() -> None:
    assert turbo4d.__version__ == PYPROJECT["project"]["version"]


def test_torch_finds_the_backend() -> None:
    assert "turbo4d" in torch.compiler.list_backends()
    (backend,) = entry_points(group="torch_dynamo_backends", name="turbo4d")
    assert callable(backend.load())


def test_the_command_is_there() -> None:
    (command,) = entry_points(group="console_scripts", name="turbo4d")
    assert callable(command.load())


@pytest.mark.parametrize("package", sorted(FOLDERS))
def test_every_library_loaded_at_import_is_a_dependency(package: str) -> None:
    """Extras are imported inside functions, but in the files that exist for one of them."""
    allowed = {*sys.stdlib_module_names, "turbo4d", *names(PYPROJECT["project"]["dependencies"])}
    optional = (ROOT / "runtime/engines", ROOT / "compiler/lower")
    undeclared = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in (ROOT / FOLDERS[package]).rglob("*.py")
        if path.parent not in optional
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        for module in top_level_imports(node)
        if module not in allowed
    }
    assert undeclared == set()


def top_level_imports(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module.split(".")[0]]
    return []
