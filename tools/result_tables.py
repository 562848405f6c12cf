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


def _waterfall(report: Report) -> str:
    table = _table(
        ("technique", "ms per step", "speed-up", "TFLOP per run", "slots at most",
         "PSNR in the object", "worst scene", "steps"),
        [
            (
                row["name"],
                f"{row['ms_per_step']:.0f}",
                f"{row['speedup']:.2f}x",
                "" if row["flops"] is None else f"{row['flops'] / 1e12:.3f}",
                f"{row['cache_peak_bytes'] / 2**20:.1f} MiB",
                _decibels(row["psnr_mask_db"]),
                _decibels(row["psnr_mask_worst_db"]),
                f"`{row['steps']}`" if row["steps"] else "",
            )
            for row in report["rows"]
        ],
    )  # fmt: skip
    return (
        f"{table}\n\nEach technique alone, at the steps where `balanced` reuses regions of its "
        "kind; then one upon another. Steps as above; p: tokens pruned, x: chains bypassed. "
        f"Medians of {len(report['scenes'])} held-out scenes, {report['runs']} runs of each in "
        f"turn; {report['model']}, {report['dtype']}, lowering {report['lowering']}. "
        f"{_machine(report)}"
    )


def _adaptive(report: Report) -> str:
    rows = sorted(report["rows"], key=lambda row: row["cost"])
    table = _table(
        ("what runs", "operations", "PSNR, mean", "PSNR, worst scene", "steps off the plan",
         "static at its mean", "static at its worst"),
        [
            (
                f"`{row['name']}`" if "ceiling" not in row["name"] else row["name"],
                f"{row['cost']:.1%}",
                _decibels(row["psnr_mean_db"]),
                _decibels(row["psnr_worst_db"]),
                f"{row['departures']:.1f}" if "adaptive" in row["name"] else "",
                _share(row.get("static_cost_at_psnr_mean_db")),
                _share(row.get("static_cost_at_psnr_worst_db")),
            )
            for row in rows
        ],
    )  # fmt: skip
    motions = ", ".join(f"{name} (motion x {times:g})" for name, times in report["motions"].items())
    return (
        f"{table}\n\nOperations: of an uncached run's. Unmeasured: as adaptive, with every scene "
        "taken for a typical one, so a static plan too. Static at its mean or worst: what a static "
        "plan costs that reaches the adaptive run's PSNR, interpolated between the static rows. "
        f"{len(report['scenes'])} held-out scenes, in turn {motions}; {report['steps']} steps. "
        f"{_machine(report)}"
    )


def _conditional(report: Report) -> str:
    jobs = [*report["rows"][0]["seconds"]]
    steps = _table(
        ("step", *jobs, "largest relative difference"),
        [
            (
                row["name"],
                *(f"{row['seconds'][job] * 1e3:.1f} ms" for job in jobs),
                f"{max(row['difference'].values()):.1e}",
            )
            for row in report["rows"]
        ],
    )
    sizes = _table(
        ("engines", "graphs", "graph files", "weights, each engine its own", "resident"),
        [
            (
                f"{row['lowering']} {row['way']}",
                str(row["graphs"]),
                _megabytes(row.get("graph_bytes")),
                _megabytes(row.get("weights_bytes_apart")),
                _megabytes(row["resident_bytes"]),
            )
            for row in report["sizes"]
        ],
    )
    return (
        f"{steps}\n\n{sizes}\n\nSpecialised: a graph for each kind of step; conditional: one graph "
        "with a branch for each region. The difference is from the specialised engine under eager, "
        "over outputs and slots. Resident: what a process that opens and calls each engine once "
        "grows by; under eager the network itself is not in it. Medians of "
        f"{report['runs']} runs in turn, {report['model']}, load average "
        f"{report['load_average']:.1f} at the start. {_machine(report)}"
    )


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f} MB"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


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
    ("Every granularity, alone and combined", "waterfall-nano-v1.json", _waterfall),
    ("Adaptive runs beside static plans", "adaptive-nano-v1.json", _adaptive),
    ("One conditional engine, or one for each variant", "conditional-nano-v1.json", _conditional),
    ("A step's time against its operations and bytes", "steps-nano-v1.json", _steps),
)
