"""tools/results/README.md: the stored measurements as tables, each with what it was taken on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Report = Mapping[str, Any]


def tables(folder: Path) -> str:
    """The page; a measurement that is not stored says so.

    Args:
        folder: of the reports.
    """
    parts = [
        "# Stored measurements",
        "Written by `python tools/readme_figures.py` from the JSON files here; nothing is typed.",
    ]
    for title, name, draw in _PARTS:
        path = folder / name
        body = draw(json.loads(path.read_text())) if path.exists() else "Not measured."
        parts += [f"## {title}", body]
    return "\n\n".join(parts) + "\n"


def _regions(report: Report) -> str:
    rows = sorted(report["rows"], key=lambda row: row["speedup"])
    table = _table(
        ("what runs", "speed-up", "PSNR in the object", "worst scene", "error of the latent",
         "loss against ground truth", "steps"),
        [
            (
                row["name"],
                f"{row['speedup']:.2f}x",
                _decibels(row["psnr_mask_db"]),
                _decibels(row["psnr_mask_worst_db"]),
                f"{row['latent_error']:.1e}",
                f"{row['gt_loss_mask_db']:+.2f} dB",
                f"`{row['steps']}`" if row["steps"] else "",
            )
            for row in rows
        ],
    )  # fmt: skip
    return (
        f"{table}\n\nSteps: C computed, K the core reused, L the outermost level, c every chain, "
        f"b every block. Medians of {len(report['scenes'])} held-out scenes, {report['runs']} runs "
        f"of each in turn; {report['model']}, {report['dtype']}, lowering {report['lowering']} on "
        f"both sides. {_machine(report)}"
    )


def _steps(report: Report) -> str:
    table = _table(
        ("variant", "nodes", "GFLOP", "MB moved", "measured", "predicted", "off by"),
        [
            (
                row["name"],
                str(row["nodes"]),
                f"{row['flops'] / 1e9:.2f}",
                f"{row['bytes'] / 1e6:.0f}",
                f"{row['seconds'] * 1e3:.1f} ms",
                f"{row['predicted_s'] * 1e3:.1f} ms",
                f"{row['predicted_s'] / row['seconds'] - 1:+.0%}",
            )
            for row in report["rows"]
        ],
    )
    return (
        f"{table}\n\nPredicted from two fitted numbers, {report['flop_per_s'] / 1e9:.0f} GFLOP/s "
        f"and {report['byte_per_s'] / 1e9:.1f} GB/s; medians of {report['runs']} runs in turn. "
        f"{_machine(report)}"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _decibels(value: float) -> str:
    return "equal in every bit" if value >= 200 else f"{value:.1f} dB"


def _machine(report: Report) -> str:
    return (
        f"{report['device']}, {report['threads']} threads, torch {report['torch']}, commit "
        f"`{report['commit'][:12]}`."
    )


_PARTS: Sequence[tuple[str, str, Callable[[Report], str]]] = (
    ("Each kind of region alone, and the presets", "regions-nano-v1.json", _regions),
    ("A step's time against its operations and bytes", "steps-nano-v1.json", _steps),
)
