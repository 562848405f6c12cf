"""graph-store: canonical graphs of earlier processes, so that a capture traces no graph twice.

`TURBO4D_GRAPH_STORE` names the folder, else `XDG_CACHE_HOME/turbo4d/graphs`; 0 keeps none. A graph
is one file, found by the digest of all it depends on (`graph_key`), and lies there whole or not at
all: its first line is a digest of the rest. It holds no weight, and reading it runs nothing of what
it says (`graph_reading`). What was not used for longest goes where all together are more than
`BOUND_BYTES`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, fx
from turbo4d.compiler.canonicalise import Canonical, Row
from turbo4d.compiler.errors import GraphFileError
from turbo4d.compiler.graph_file import graph_json
from turbo4d.compiler.graph_reading import dtype_of, graph_of
from turbo4d.compiler.ir import Placeholder
from turbo4d.runtime.log import say

VARIABLE = "TURBO4D_GRAPH_STORE"
FORMAT = "turbo4d graph 2"
BOUND_BYTES = 256 << 20
# A constant beyond it is no number that a forward writes down, but a tensor it holds.
_LONGEST = 4096


def store_folder() -> Path | None:
    """Where graphs are kept on this machine; None where none are."""
    told = os.environ.get(VARIABLE)
    if told is not None:
        return Path(told) if told not in ("", "0") else None
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "turbo4d" / "graphs"


def take(folder: Path, key: str, rows: Sequence[Row]) -> Canonical | None:
    """The canonical graph of a key; None where there is none that can be read.

    Args:
        folder: of the store.
        key: of the capture.
        rows: what the placeholders of its trace hold.
    """
    path = folder / f"{key}.json"
    try:
        head, _, text = path.read_text("utf-8").partition("\n")
        if head != _head(text):
            raise GraphFileError("its first line is not of what follows.")
        os.utime(path)  # it was used just now
        return _read(json.loads(text), rows)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, GraphFileError) as error:
        say(1, f"the stored graph {path} is as good as absent: {type(error).__name__}: {error}")
        return None


def put(folder: Path, key: str, graph: Canonical) -> None:
    """Keep a canonical graph; one that a file cannot hold is not kept, and the log says so."""
    try:
        text = json.dumps(_written(graph), separators=(",", ":"))
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
            file.write(f"{_head(text)}\n{text}")
        Path(file.name).replace(folder / f"{key}.json")
        _prune(folder)
    except (OSError, GraphFileError) as error:
        say(1, f"the graph is not stored: {error}")


def _head(text: str) -> str:
    return f"{FORMAT} {hashlib.sha256(text.encode()).hexdigest()}"


def _written(graph: Canonical) -> dict[str, Any]:
    nodes: list[fx.Node] = [*graph.module.graph.nodes]
    return {
        "graph": graph_json(graph.module),
        "modules": [node.meta.get("module") for node in nodes],
        "table": [[row.name, row.kind, row.target] for row in graph.table],
        "positions": graph.positions,
        "constants": {name: _constant(name, of) for name, of in graph.constants.items()},
    }


def _constant(name: str, value: Tensor) -> list[Any]:
    plain = value.device.type == "cpu" and not value.is_complex() and value.numel() <= _LONGEST
    if not plain or not value.is_contiguous():
        raise GraphFileError(f"constant {name!r} is of {value.numel()} numbers of {value.dtype}.")
    numbers: Any = value
    return [str(value.dtype).removeprefix("torch."), list(value.shape), numbers.tolist()]


def _read(found: Mapping[str, Any], rows: Sequence[Row]) -> Canonical:
    module = graph_of(found["graph"])
    nodes: list[fx.Node] = [*module.graph.nodes]
    for node, path in zip(nodes, found["modules"], strict=True):
        if path is not None:
            node.meta["module"] = str(path)
    given = [node.meta["val"] for node in nodes if node.op == "placeholder"]
    held = {(row.kind, row.target) for row in rows}
    table: list[Placeholder] = []
    for (name, kind, target), value in zip(found["table"], given, strict=True):
        if (kind, target) not in held and target not in found["constants"]:
            raise GraphFileError(f"the table has {target!r}, which the capture has not.")
        table.append(Placeholder(name, kind, target, tuple(value.shape), value.dtype))
    constants = {
        name: torch.tensor(of, dtype=dtype_of(dtype)).reshape(shape)
        for name, (dtype, shape, of) in cast("Mapping[str, Any]", found["constants"]).items()
    }
    return Canonical(module, tuple(table), tuple(map(int, found["positions"])), constants)


def _prune(folder: Path) -> None:
    """Remove what was not used for longest until the rest fits; what goes meanwhile is gone."""
    held: list[tuple[float, int, Path]] = []
    for path in folder.iterdir():
        try:
            facts = path.stat()
        except OSError:
            continue
        held.append((facts.st_mtime, facts.st_size, path))
    left = sum(size for _, size, _ in held)
    for _, size, path in sorted(held):
        if left <= BOUND_BYTES:
            return
        path.unlink(missing_ok=True)
        left -= size
