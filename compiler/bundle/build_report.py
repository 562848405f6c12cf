"""build-report: what was built, in figures; as a table for the eye and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from turbo4d.runtime.bundle.manifest import Target

from .memory import MemoryNeed


@dataclass(frozen=True)
class EngineReport:
    """One engine.

    Args:
        name: of its variant, "prologue" or "conditional".
        graph_bytes: of the ONNX file, which holds no weights.
        engine_bytes: of the target's own file; 0 where the graph is what runs.
        flops: of one call.
        seconds: that it took to build, its graph left out.
        executed: whether it ran here.
        stored: whether it came from the store.
        layers: how many it has, None where that is not told.
        error: its results against plain torch, |a - b| / |b|; None where it was not run.
        facts: what else the target says.
    """

    name: str
    graph_bytes: int
    engine_bytes: int
    flops: int
    seconds: float
    executed: bool
    stored: bool
    layers: int | None
    error: float | None
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def status(self) -> str:
        """What may be said of it."""
        return "run" if self.executed else "built, not executed"


@dataclass(frozen=True)
class BuildReport:
    """A bundle that was built.

    Args:
        path: of it.
        model: what people call it.
        plan: its name.
        target: that it is for.
        engines: all.
        weights_bytes: of the weight file.
        files_bytes: of all files.
        need: what running it takes.
        peak_bytes: the most memory that this process has held so far.
        seconds: by what was being done.
        notes: what did not go as it should have.
    """

    path: Path
    model: str
    plan: str
    target: Target
    engines: tuple[EngineReport, ...]
    weights_bytes: int
    files_bytes: int
    need: MemoryNeed
    peak_bytes: int
    seconds: Mapping[str, float]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON takes it."""
        values = asdict(self)
        values["path"] = str(self.path)
        values["need"] = {**asdict(self.need), "total": self.need.total}
        for row, engine in zip(values["engines"], self.engines, strict=True):
            row["status"] = engine.status
        return values

    def table(self) -> list[list[str]]:
        """A row of texts for each engine, after one of headings."""
        heads = ["engine", "graph bytes", "engine bytes", "layers", "seconds", "error", "status"]
        rows = [
            [
                each.name,
                str(each.graph_bytes),
                str(each.engine_bytes) if each.engine_bytes else "-",
                "-" if each.layers is None else str(each.layers),
                "stored" if each.stored else f"{each.seconds:.1f}",
                "-" if each.error is None else f"{each.error:.1e}",
                each.status,
            ]
            for each in self.engines
        ]
        return [heads, *rows]

    def __str__(self) -> str:
        rows = self.table()
        widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        weights, files = (size / 2**20 for size in (self.weights_bytes, self.files_bytes))
        mib = f"weights {weights:.1f} MiB, all files {files:.1f} MiB"
        return "\n".join([f"{self.path}: plan {self.plan!r} for {self.target.name} on "
                          f"{self.target.device}", *lines, mib, *self.notes])  # fmt: skip
