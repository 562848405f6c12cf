"""The figures of bundles, from what measured them: bytes, memory, cold start, engines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turbo4d.tools.markdown import machine, table

Report = Mapping[str, Any]
RUNTIME, ENGINES, FULL = (
    "bundles-nano-v1.json",
    "engines-nano-sm89.json",
    "full-size-sv4d.json",
)
_WAYS = {
    "shared": "an engine for each variant, one mapped copy of the weights",
    "packed": "an engine for each variant, weights packed for each",
    "conditional": "one engine with an `If` for each region (`--form conditional`)",
}


def block(folder: Path) -> str:
    """The block; what is not stored says so.

    Args:
        folder: of the reports.
    """
    parts = ((RUNTIME, _runtime), (ENGINES, _engines), (FULL, _full))
    found = [draw(json.loads((folder / name).read_text())) for name, draw in parts
             if (folder / name).exists()]  # fmt: skip
    return "\n\n".join(found) or "Not measured."


def _runtime(report: Report) -> str:
    alone_s = report["weights_alone"]["start_s"]
    drawn = table(
        (
            "`nano` under ONNX Runtime",
            "files",
            "weights",
            "resident after a sample",
            "a sample's calls",
            "cold start to the first step done",
        ),
        [
            (
                _WAYS[way],
                _megabytes(row["files_bytes"]),
                _megabytes(row["weights_bytes"]),
                _megabytes(row["sampled_bytes"]),
                f"{row['seconds']:.2f} s",
                f"{row['start_s']:.2f} s ({row['start_s'] / alone_s:.1f}x)",
            )
            for way, row in report["ways"].items()
        ],
    )
    return (
        f"{drawn}\n\nPlan `{report['plan']}`, {report['steps']} steps, medians of "
        f"{report['runs']} samples in turn, and of three processes for a start; in parentheses "
        f"beside importing torch and reading the weights alone, {alone_s:.2f} s. {machine(report)}"
    )


def _engines(report: Report) -> str:
    rows = [
        (
            f"`{row['name']}`",
            str(row["inputs"]["layers"]),
            _megabytes(row["graph_bytes"]),
            _megabytes(row["embedded"]["engine_bytes"]),
            _megabytes(row["inputs"]["engine_bytes"]),
            _megabytes(row["inputs"]["packed_bytes"]),
        )
        for row in report["engines"]
    ]
    drawn = table(
        (
            f"`{report['model']}` for `{report['target']}`",
            "layers",
            "graph",
            "engine with its weights",
            "engine that is given them",
            "the same, as stored",
        ),
        rows,
    )
    return (
        f"{drawn}\n\nPlan `{report['plan']}`; {report['status']}. All engines took "
        f"{report['s']['inputs']:.0f} s to build without a GPU, and share one file of weights, "
        f"{_megabytes(report['weights_bytes'])}. {machine(report)}"
    )


def _full(report: Report) -> str:
    rows = [
        (
            f"`{row['name']}`" + (f", {report['level']} alone" if row["name"] == "level" else ""),
            f"{row['flops'] / 1e12:.2f}",
            str(row["nodes"]),
            _megabytes(row["graph_bytes"]),
            *(
                (
                    str(row["network_layers"]),
                    _megabytes(row["packed_bytes"]),
                    f"{row['build_s']:.0f} s",
                    row["status"],
                )
                if "engine_bytes" in row
                else ("", "", "", "graph written and checked")
            ),
        )
        for row in report["graphs"]
    ]
    drawn = table(
        (
            f"full-size `{report['model']}`, {report['dtype']}, for `{report['target']}`",
            "TFLOP",
            "nodes",
            "graph",
            "layers",
            "engine, as stored",
            "built in",
            "status",
        ),
        rows,
    )
    return (
        f"{drawn}\n\nPlan `{report['plan']}`, random weights, "
        f"{_megabytes(report['weights_bytes'])} in one file for all. The process held "
        f"{_megabytes(report['peak_bytes'])} at most. {_beside_one(report)}"
        f"{machine(report)}"
    )


def _beside_one(report: Report) -> str:
    """The bytes of all engines beside those of `compute` alone, where all were built."""
    graphs = {row["name"]: row for row in report["graphs"] if row["name"] != "level"}
    if not all("engine_bytes" in row for row in graphs.values()) or "compute" not in graphs:
        return ""
    one = [graphs[name] for name in ("prologue", "compute") if name in graphs]

    def ratio(size: str) -> float:
        all_bytes, one_bytes = (
            report["weights_bytes"] + sum(row["graph_bytes"] + row[size] for row in rows)
            for rows in (graphs.values(), one)
        )
        return all_bytes / one_bytes

    return (
        f"With these engines a bundle has {ratio('packed_bytes'):.3f} times the bytes of one that "
        f"computes every step ({ratio('engine_bytes'):.2f} times once engines are unpacked). "
    )


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"
