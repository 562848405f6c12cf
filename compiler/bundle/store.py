"""store: engines of earlier builds, by what they were made of, so that none is built twice.

`TURBO4D_ENGINE_STORE`, else `XDG_CACHE_HOME/turbo4d/engines`; `store_size` bounds it. The key is
the sha256 of the graph's bytes without the places of its weights, of target, device and settings,
and of all versions. An engine that holds weights within is only taken for the same weights. Each is
hashed again when it is taken, and lies there whole or not at all, however many processes use it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from turbo4d.compiler.lower.onnx_weights import raw
from turbo4d.runtime.bundle.manifest import TensorRow

from .store_size import PARTIAL, bound_bytes, prune, used
from .targets import BuildRequest, Built, TargetBuilder

SCHEMA_VERSION = 1
_ENTRY, _ENGINE = "entry.json", "engine"


def store_folder() -> Path:
    """Where engines are kept on this machine."""
    if told := os.environ.get("TURBO4D_ENGINE_STORE"):
        return Path(told)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "turbo4d" / "engines"


def key_of(graph: Path, target: TargetBuilder, versions: Mapping[str, str]) -> str:
    """What an engine depends on, but for the values of weights.

    Args:
        graph: an ONNX file.
        target: that the engine is for.
        versions: of what writes graphs; the target's own are added.
    """
    import onnx

    library: Any = onnx
    model = library.load(graph, load_external_data=False)
    for tensor in model.graph.initializer:
        del tensor.external_data[:]
    facts = [
        SCHEMA_VERSION,
        hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest(),
        [target.name, target.device],
        sorted(target.settings().items()),
        sorted({**versions, **target.versions()}.items()),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


class EngineStore:
    """Engines by key.

    Args:
        root: made when something is put there.

    Raises:
        OptionError: a bound that is none, see `store_size`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._bound = bound_bytes()

    def take(self, key: str, request: BuildRequest, suffix: str) -> Built | None:
        """A copy of an engine in the request's scratch folder; None where there is none of it.

        What is damaged, or holds other weights, is as good as absent: it is built anew and put in
        its place.
        """
        try:
            entry = json.loads((self._root / key / _ENTRY).read_text("utf-8"))
            path = request.scratch / f"stored{suffix}"
            shutil.copyfile(self._root / key / _ENGINE, path)
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if sha256 != entry["sha256"] or entry["within"] != _within(entry["holds"], request):
                return None
            used(self._root / key)
            return Built(
                engine=path,
                takes=tuple(_row(row) for row in entry["takes"]),
                gives=tuple(_row(row) for row in entry["gives"]),
                executed=bool(entry["executed"]),
                layers=entry["layers"],
                facts=entry["facts"],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, request: BuildRequest, built: Built) -> None:
        """Keep an engine; one that is there already is replaced, and old ones may have to go.

        Raises:
            OSError: the store cannot be written.
        """
        if built.engine is None:
            return
        outside = {row.name for row in built.takes if row.kind == "weight"}
        holds = sorted(set(request.held) - outside)
        self._root.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=self._root))
        try:
            shutil.copyfile(built.engine, made / _ENGINE)
            with (made / _ENGINE).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            entry = {
                "sha256": sha256,
                "holds": holds,
                "within": _within(holds, request),
                "takes": [dataclasses.asdict(row) for row in built.takes],
                "gives": [dataclasses.asdict(row) for row in built.gives],
                "executed": built.executed,
                "layers": built.layers,
                "facts": dict(built.facts),
            }
            (made / _ENTRY).write_text(json.dumps(entry), "utf-8")
            self._exchange(made, self._root / key)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        prune(self._root, self._bound)

    def _exchange(self, made: Path, place: Path) -> None:
        """Put a whole entry in its place; where another process is quicker, its entry stays."""
        old = made.with_name(f"{made.name}.old")
        try:
            if place.exists():
                place.rename(old)
            made.rename(place)
        except OSError:
            if not place.exists():
                raise
        finally:
            shutil.rmtree(old, ignore_errors=True)


def _within(holds: list[str], request: BuildRequest) -> str:
    """A digest of the weights that an engine holds within, by their names in the graph."""
    digest = hashlib.sha256()
    for name in holds:
        value: Tensor = request.values[name]
        digest.update(f"{name}:{tuple(value.shape)}:{value.dtype}\n".encode())
        digest.update(raw(value))
    return digest.hexdigest()


def _row(values: Mapping[str, Any]) -> TensorRow:
    names = ("name", "kind", "source", "shape", "dtype")
    name, kind, source, shape, dtype = (values[each] for each in names)
    return TensorRow(name, kind, source, tuple(shape), dtype)
