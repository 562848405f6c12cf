"""Of the code that makes a stored graph nothing is missing from its key."""

from __future__ import annotations

import ast
from pathlib import Path

from turbo4d.compiler import graph_key

FOLDER = Path(graph_key.__file__).parent
# What they do shows in no graph: sentences, text of graphs, and where values came from.
ASIDE = {"errors", "show", "sources"}


def imported(name: str) -> set[str]:
    """The compiler's own files that one of them imports."""
    tree = ast.parse((FOLDER / f"{name}.py").read_text("utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            whole, _, last = node.module.rpartition("turbo4d.compiler")
            if not whole and last.startswith("."):
                found.add(last[1:].split(".")[0])
            elif node.module == "turbo4d.compiler":
                found.update(alias.name for alias in node.names)
    return found


def test_all_that_makes_a_graph_is_in_its_key() -> None:
    waiting, found = ["capture"], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in found | ASIDE:
            found.add(name)
            waiting += imported(name)
    assert {"canonicalise", "spelling", "view_spelling"} < found
    assert sorted(found - {*graph_key._CODE}) == []
