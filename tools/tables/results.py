"""tools/results/README.md: the stored measurements as tables, each with what it was taken on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from turbo4d.tools.markdown import decibels, machine, table
from turbo4d.tools.rivals import pareto
from turbo4d.tools.tables import bench, bundles, foreign, granularity, peers, presets
from turbo4d.tools.tables.bench import NOT_MEASURED

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
        body = draw(json.loads(path.read_text())) if path.exists() else NOT_MEASURED
        parts += [f"## {title}", body]
    for title, draw_all in _OF_SEVERAL:
        parts += [f"## {title}", draw_all(folder)]
    return "\n\n".join(parts) + "\n"


def _regions(report: Report) -> str:
    rows = sorted(report["rows"], key=lambda row: row["speedup"])
    drawn = table(
        ("what runs", "speed-up", "PSNR in the object", "worst scene", "error of the latent",
         "loss against ground truth", "steps"),
        [
            (
                row["name"],
                f"{row['speedup']:.2f}x",
                decibels(row["psnr_mask_db"]),
                decibels(row["psnr_mask_worst_db"]),
                f"{row['latent_error']:.1e}",
                f"{row['gt_loss_mask_db']:+.2f} dB",
                f"`{row['steps']}`" if row["steps"] else "",
            )
            for row in rows
        ],
    )  # fmt: skip
    return (
        f"{drawn}\n\nSteps: C computed, K the core reused, L the outermost level, c every chain, "
        f"b every block. Medians of {len(report['scenes'])} held-out scenes, {report['runs']} runs "
        f"of each in turn; {report['model']}, {report['dtype']}, lowering {report['lowering']} on "
        f"both sides. {machine(report)}"
    )


def _steps(report: Report) -> str:
    drawn = table(
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
        f"{drawn}\n\nPredicted from two fitted numbers, {report['flop_per_s'] / 1e9:.0f} GFLOP/s "
        f"and {report['byte_per_s'] / 1e9:.1f} GB/s; medians of {report['runs']} runs in turn. "
        f"{machine(report)}"
    )


def _cost_model(report: Report) -> str:
    rows = report["rows"]
    drawn = table(
        ("variant", "GFLOP", "MB moved", "MB taken anew", "measured", "predicted", "off by"),
        [
            (
                row["name"],
                *_asked(row["work"]),
                f"{row['seconds'] * 1e3:.2f} ms",
                f"{row['predicted_s'] * 1e3:.2f} ms",
                f"{row['predicted_s'] / row['seconds'] - 1:+.0%}",
            )
            for row in rows
        ],
    )
    within = sum(abs(row["predicted_s"] / row["seconds"] - 1) <= 0.25 for row in rows)
    rates = report["machine"]
    return (
        f"{drawn}\n\n{within} of {len(rows)} are within 25 %. Predicted from rates that operators "
        f"alone were measured to have, before and after the steps, none of them fitted to a step: "
        f"{rates['matmul_flops'] / 1e9:.0f} GFLOP/s, {rates['bandwidth'] / 1e9:.1f} GB/s, "
        f"{rates['launch_s'] * 1e6:.1f} us for a call, {rates['function_s'] * 1e9:.2f} ns for a "
        f"function such as erf, {rates['group_s'] * 1e6:.2f} us for a group of an attention, "
        f"{rates['fresh_s'] * 1e12:.0f} us for a megabyte taken anew from the system. Medians of "
        f"{report['runs']} runs in turn. {machine(report)}"
    )


def _predictor(report: Report) -> str:
    pairs = [(point["predicted_db"], point["measured_db"]) for point in report["points"]]
    edges = (0, 25, 30, 35, 40, 50, 1000)
    rows: list[tuple[str, str, str]] = []
    for low, high in pairwise(edges):
        off = [measured - predicted for predicted, measured in pairs if low <= predicted < high]
        name = f"{low} to {high} dB" if high < edges[-1] else f"{low} dB and more"
        rows.append((name, str(len(off)), f"{mean(off):+.1f} dB" if off else "none"))
    drawn = table(("predicted PSNR", "plans", "measured lies off by, on average"), rows)
    return (
        f"Rank correlation (Spearman) {report['spearman']:.3f} over {report['plans']} random plans "
        f"of the moves that keep no fitted weights, each sampled on a calibration scene.\n\n"
        f"{drawn}\n\nThe worst is off by {report['worst_off_db']:.1f} dB, the median by "
        f"{report['median_off_db']:.1f} dB. {machine(report)}"
    )


def _asked(work: Mapping[str, int] | None) -> tuple[str, str, str]:
    if work is None:
        return "", "", ""
    moved = work["bytes"] + work["packed_bytes"]
    return f"{work['flops'] / 1e9:.2f}", f"{moved / 1e6:.0f}", f"{work['fresh_bytes'] / 1e6:.0f}"


def _conditional(report: Report) -> str:
    jobs = [*report["rows"][0]["seconds"]]
    steps = table(
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
    sizes = table(
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
        f"{report['load_average']:.1f} at the start. {machine(report)}"
    )


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f} MB"


_PARTS: Sequence[tuple[str, str, Callable[[Report], str]]] = (
    (
        "Plans beside the policies of others",
        "pareto-nano-v1.json",
        pareto.full_table,
    ),
    ("Hundreds of sessions in one process", "bench-soak.json", bench.soak_line),
    ("Each kind of region alone, and the presets", "regions-nano-v1.json", _regions),
    (
        "Every granularity, alone and combined",
        "waterfall-nano-v1.json",
        granularity.waterfall,
    ),
    ("Adaptive runs beside static plans", "adaptive-nano-v1.json", granularity.adaptive),
    ("One conditional engine, or one for each variant", "conditional-nano-v1.json", _conditional),
    (
        "Tokens pruned: what is saved, and what is said",
        "prune-nano-v1.json",
        granularity.prune,
    ),
    ("Which tokens matter", "relevance-nano-v1.json", granularity.relevance),
    ("A step's time against its operations and bytes", "steps-nano-v1.json", _steps),
    (
        "The cost model: predicted beside measured, variant by variant",
        "cost-model-nano-v1.json",
        _cost_model,
    ),
    (
        "The error predictor: predicted beside measured, over random plans",
        "predictor-nano-v1.json",
        _predictor,
    ),
    ("Models nobody prepared", "foreign.json", foreign.block),
)
# Parts that several reports make.
_OF_SEVERAL: Sequence[tuple[str, Callable[[Path], str]]] = (
    (
        "Beside torch's own compiler, other policies and fewer steps",
        lambda folder: bench.full_table(bench.read_report(folder, "cpu")),
    ),
    (
        "Packages of others beside turbo4d",
        lambda folder: peers.beside_table(bench.read_report(folder, "peers")),
    ),
    (
        "Packages of others: every row",
        lambda folder: peers.full_table(bench.read_report(folder, "peers")),
    ),
    ("The presets alone", presets.block),
    ("Bundles and engines", bundles.block),
)
