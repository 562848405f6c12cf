"""The rules no reviewer should have to look for: who imports whom, and what nobody may write.

`MAY_IMPORT` is the import rule; CONTRIBUTING.md says why. A file is judged by its text alone, so
an import under `TYPE_CHECKING` or inside a function counts like any other.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EVERYTHING = {"turbo4d", "models", "passes", "runtime", "compiler", "tools"}
MAY_IMPORT = {
    "turbo4d": EVERYTHING,
    "models": {"models"},
    "passes": {"passes"},
    "runtime": {"runtime"},
    "compiler": {"compiler", "passes", "runtime"},
    "tools": EVERYTHING,
}
VENDORS = {"onnxruntime", "tensorrt", "tensorrt_rtx", "torch_tensorrt"}
UNSAFE = {"pickle", "dill", "cloudpickle", "marshal", "shelve"}
SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in MAY_IMPORT
    for path in (ROOT / folder).rglob("*.py")
)


def package_of(path: str) -> list[str]:
    """The package a file's relative imports start from: `passes/base.py` -> turbo4d, passes."""
    parts = path.split("/")[:-1]
    return parts if parts[0] == "turbo4d" else ["turbo4d", *parts]


def dotted(node: ast.expr) -> str:
    """`torch._C._aoti` of an attribute chain on a name, "" of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def imports(path: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yields (line, full dotted name) of all a file imports, by any of the three ways."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                package = package_of(path)
                base = package[: len(package) - level + 1] if level else []
                source = ".".join([*base, *([module] if module else [])])
                yield from ((node.lineno, f"{source}.{alias.name}") for alias in names)
            case ast.Call(func=func, args=[ast.Constant(value=str(name)), *_]) if dotted(func) in {
                "import_module",
                "importlib.import_module",
                "__import__",
            }:
                yield node.lineno, name
            case _:
                pass


def is_private_torch(name: str) -> bool:
    """`torch._C`, `torch.fx._lazy`; neither `torch.ops.aten._softmax` nor `torch.__version__`."""
    root, *rest = name.split(".")
    return (
        root == "torch"
        and rest[:1] != ["ops"]
        and any(part.startswith("_") and not part.startswith("__") for part in rest)
    )


def why_not_import(path: str, name: str) -> str | None:
    """Why the file may not import what bears this dotted name, None where it may."""
    folder, stem = path.split("/")[0], Path(path).stem
    root, *rest = name.split(".")
    if root in EVERYTHING - {"turbo4d"}:
        return f"{name} is importable only from the checkout; write turbo4d.{name}"
    if root == "turbo4d":
        target = rest[0] if rest and rest[0] in EVERYTHING else "turbo4d"
        if target not in MAY_IMPORT[folder]:
            return f"{folder} may not import {target}"
        is_pass = folder == "passes" and stem not in {"__init__", "base", "compat"}
        if is_pass and rest[1:2] not in (["base"], ["compat"], ["tokens"]):
            return "a pass may import nothing but passes/base and passes/tokens"
    if root in VENDORS and not path.startswith("runtime/engines/"):
        return f"{root} is imported in runtime/engines/ and nowhere else"
    if root in UNSAFE:
        return f"{root} runs code from the file it reads"
    return None


def is_outer_edge(path: str, handler: ast.ExceptHandler) -> bool:
    """The command line turns what it knows into one sentence, and raises the rest again."""
    raises_again = any(isinstance(n, ast.Raise) and not n.exc for n in ast.walk(handler))
    return path == "tools/cli.py" and raises_again


def why_not_node(path: str, node: ast.AST) -> str | None:
    """Why the file may not say this, None where it may."""
    match node:
        case ast.ExceptHandler(type=None):
            return "a bare except"
        case ast.ExceptHandler(type=ast.expr() as caught) if not is_outer_edge(path, node):
            names = {dotted(each) for each in getattr(caught, "elts", [caught])}
            if too_wide := sorted(names & {"Exception", "BaseException"}):
                return f"except {too_wide[0]}"
        case ast.Assert():
            return "an assert, which `python -O` drops: raise, or test it"
        case ast.Call(func=func, keywords=keywords) if dotted(func) == "torch.load":
            given = {each.arg: getattr(each.value, "value", None) for each in keywords}
            if given.get("weights_only") is not True:
                return "torch.load without weights_only=True"
        case _:
            pass
    return None


def violations(path: str, source: str) -> list[str]:
    """One sentence for each thing in a file that breaks a rule of this page."""
    tree = ast.parse(source)
    imported = list(imports(path, tree))
    found = [(line, why_not_import(path, name)) for line, name in imported]
    if not Path(path).name.endswith("compat.py"):
        chains = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        links = {id(node.value) for node in chains}
        attributes = [(node.lineno, dotted(node)) for node in chains if id(node) not in links]
        found += [
            (line, f"{name} is private to torch: reach it through a compat.py of the folder")
            for line, name in imported + attributes
            if is_private_torch(name)
        ]
    found += [(getattr(node, "lineno", 0), why_not_node(path, node)) for node in ast.walk(tree)]
    return [f"{path}:{line}: {why}" for line, why in found if why]


@pytest.mark.parametrize("path", SOURCES)
def test_file_keeps_the_rules(path: str) -> None:
    broken = violations(path, (ROOT / path).read_text(encoding="utf-8"))
    assert not broken, "\n".join(broken)


def test_each_vendor_has_one_file() -> None:
    importers = {
        (name.split(".")[0], path)
        for path in SOURCES
        for _, name in imports(path, ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if name.split(".")[0] in VENDORS
    }
    files = Counter(vendor for vendor, _ in importers)
    assert all(count == 1 for count in files.values()), sorted(importers)


def test_every_package_is_under_the_rule() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == set(MAY_IMPORT)


REFUSED = [
    ("models/a.py", "from turbo4d.passes.base import Pass", "models may not import passes"),
    ("models/a.py", "from ..runtime import plan", "models may not import runtime"),
    ("passes/a.py", "import turbo4d.runtime.plan", "passes may not import runtime"),
    ("passes/a.py", "from .reuse_region import ReuseRegion", "nothing but passes/base"),
    ("passes/tokens/a.py", "from turbo4d.passes.b import B", "nothing but passes/base"),
    ("passes/a.py", "from turbo4d import compiler", "passes may not import compiler"),
    ("runtime/a.py", "def f():\n    from turbo4d.compiler import ir", "not import compiler"),
    ("runtime/engines/a.py", "from ...passes import base", "runtime may not import passes"),
    ("runtime/a.py", "import_module('turbo4d.models')", "runtime may not import models"),
    ("compiler/lower/a.py", "from ...models import unet", "compiler may not import models"),
    ("compiler/a.py", "from turbo4d.tools.cli import main", "compiler may not import tools"),
    ("compiler/a.py", "from turbo4d import Plan", "compiler may not import turbo4d"),
    ("compiler/a.py", "import turbo4d", "compiler may not import turbo4d"),
    ("tools/a.py", "from passes.base import Pass", "write turbo4d.passes.base.Pass"),
    ("compiler/lower/a.py", "import tensorrt as trt", "tensorrt is imported in runtime/engines/"),
    ("tools/a.py", "import onnxruntime.capi", "onnxruntime is imported in runtime/engines/"),
    ("compiler/a.py", "import torch._dynamo", "torch._dynamo is private"),
    ("compiler/a.py", "from torch import _C", "torch._C is private"),
    ("compiler/a.py", "from torch.fx._lazy import x", "torch.fx._lazy.x is private"),
    ("runtime/a.py", "y = torch._C._aoti.load(x)", "torch._C._aoti.load is private"),
    ("tools/a.py", "import_module('torch._inductor')", "torch._inductor is private"),
    ("tools/a.py", "import pickle", "pickle runs code"),
    ("tools/a.py", "x = torch.load(path)", "torch.load without weights_only=True"),
    ("tools/a.py", "x = torch.load(path, weights_only=False)", "torch.load without"),
    ("tools/a.py", "try:\n    f()\nexcept Exception as error:\n    raise", "except Exception"),
    ("tools/a.py", "try:\n    f()\nexcept (OSError, BaseException):\n    pass", "BaseException"),
    ("tools/a.py", "try:\n    f()\nexcept:\n    pass", "a bare except"),
    ("tools/cli.py", "try:\n    f()\nexcept Exception:\n    pass", "except Exception"),
    ("tools/a.py", "assert x, 'x must be given'", "an assert"),
]
ALLOWED = [
    ("tools/cli.py", "try:\n    f()\nexcept Exception:\n    raise"),
    ("passes/__init__.py", "from .reuse_region import ReuseRegion"),
    ("passes/a.py", "from .base import Pass\nfrom turbo4d.passes import base"),
    ("passes/a.py", "from .tokens.layout import Layout"),
    ("passes/tokens/a.py", "from .layout import Layout\nfrom turbo4d.passes.base import emit"),
    ("runtime/engines/a.py", "from ..errors import PlanError\nimport tensorrt"),
    ("compiler/lower/a.py", "from ..ir import Capture\nfrom turbo4d.runtime.plan import Plan"),
    ("compiler/compat.py", "import torch._dynamo\nx = torch._C"),
    ("compiler/dynamo_compat.py", "import torch._dynamo"),
    ("compiler/a.py", "x = torch.ops.aten._softmax.default, torch.__version__, self.torch._x"),
    ("tools/a.py", "from turbo4d.models import unet\nimport turbo4d\nfind_spec('tensorrt')"),
    ("tools/a.py", "try:\n    x = torch.load(path, weights_only=True)\nexcept OSError:\n    pass"),
]


@pytest.mark.parametrize(("path", "source", "reason"), REFUSED)
def test_a_violation_is_caught(path: str, source: str, reason: str) -> None:
    found = violations(path, source)
    assert found
    assert any(reason in each for each in found), found


@pytest.mark.parametrize(("path", "source"), ALLOWED)
def test_what_is_allowed_passes(path: str, source: str) -> None:
    assert violations(path, source) == []
