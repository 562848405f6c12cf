"""Tables of every granularity: combined, adaptive, and tokens pruned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turbo4d.tools.markdown import decibels, machine, share, table

Report = Mapping[str, Any]


def waterfall(report: Report) -> str:
    """Every technique alone, then one upon another."""
    drawn = table(
        ("technique", "ms per step", "speed-up", "TFLOP per run", "slots at most",
         "PSNR in the object", "worst scene", "steps"),
        [
            (
                row["name"],
                f"{row['ms_per_step']:.0f}",
                f"{row['speedup']:.2f}x",
                "" if row["flops"] is None else f"{row['flops'] / 1e12:.3f}",
                f"{row['cache_peak_bytes'] / 2**20:.1f} MiB",
                decibels(row["psnr_mask_db"]),
                decibels(row["psnr_mask_worst_db"]),
                f"`{row['steps']}`" if row["steps"] else "",
            )
            for row in report["rows"]
        ],
    )  # fmt: skip
    return (
        f"{drawn}\n\nEach technique alone, at the steps where `balanced` reuses regions of its "
        "kind; then one upon another. Steps as above; p: tokens pruned, x: chains bypassed. "
        f"Medians of {len(report['scenes'])} held-out scenes, {report['runs']} runs of each in "
        f"turn; {report['model']}, {report['dtype']}, lowering {report['lowering']}. "
        f"{machine(report)}"
    )


def adaptive(report: Report) -> str:
    """Adaptive runs beside static plans."""
    rows = sorted(report["rows"], key=lambda row: row["cost"])
    drawn = table(
        ("what runs", "operations", "PSNR, mean", "PSNR, worst scene", "steps off the plan",
         "static at its mean", "static at its worst"),
        [
            (
                f"`{row['name']}`" if "ceiling" not in row["name"] else row["name"],
                f"{row['cost']:.1%}",
                decibels(row["psnr_mean_db"]),
                decibels(row["psnr_worst_db"]),
                f"{row['departures']:.1f}" if "adaptive" in row["name"] else "",
                share(row.get("static_cost_at_psnr_mean_db")),
                share(row.get("static_cost_at_psnr_worst_db")),
            )
            for row in rows
        ],
    )  # fmt: skip
    motions = ", ".join(f"{name} (motion x {times:g})" for name, times in report["motions"].items())
    return (
        f"{drawn}\n\nOperations: of an uncached run's. Unmeasured: as adaptive, with every scene "
        "taken for a typical one, so a static plan too. Static at its mean or worst: what a static "
        "plan costs that reaches the adaptive run's PSNR, interpolated between the static rows. "
        f"{len(report['scenes'])} held-out scenes, in turn {motions}; {report['steps']} steps. "
        f"{machine(report)}"
    )


def prune(report: Report) -> str:
    """What pruning saves, measured and predicted."""
    drawn = table(
        ("pruned", "tokens kept", "a step's operations saved", "MB saved", "MB added",
         "step", "saved, measured", "saved, predicted"),
        [
            (
                f"{row['blocks']} {row['kind']} blocks",
                f"{row['kept']} of {row['tokens']}",
                f"{row['flops_saved'] / row['flops']:.1%}",
                f"{row['bytes_saved'] / 1e6:.0f}",
                f"{row['bytes_added'] / 1e6:.0f}",
                f"{row['compute_s'] * 1e3:.0f} ms",
                f"{row['saved_s'] * 1e3:+.1f} ms",
                f"{row['predicted_s'] * 1e3:+.1f} ms",
            )
            for row in report["rows"]
        ],
    )  # fmt: skip
    wrong = sum(row["saved_s"] * row["predicted_s"] < 0 for row in report["rows"])
    return (
        f"{drawn}\n\nMedians of {report['runs']} runs in turn; predicted for "
        f"{report['predicted_for']}. In {wrong} of {len(report['rows'])} rows the prediction has "
        "the wrong sign: blocks this small save less than the steps' times vary. "
        f"{machine(report)}"
    )


def relevance(report: Report) -> str:
    """Whether attention, sampled or whole, says which tokens matter."""
    agreement = table(
        ("query rows sampled", "rank correlation, median", "tenth part", "least"),
        [
            (
                str(row["queries"]),
                *(f"{row[field]:.3f}" for field in ("median", "tenth", "least")),
            )
            for row in report["spearman"]
        ],
    )
    covered = table(
        ("blocks", "tokens kept", "by attention", "by size of the residual", "by its last change",
         "best possible"),
        [
            (
                row["kind"],
                f"{row['kept']:.0%}",
                *(f"{row[by]:.1%}" for by in ("attention", "residual", "change", "best")),
            )
            for row in report["covered"]
        ],
    )  # fmt: skip
    return (
        "Column sums of the spatial attention's map from a sample of its rows, beside those of all "
        f"rows (Spearman):\n\n{agreement}\n\nShare of the residual's change from step to step that "
        "lies in the kept tokens; chosen at random it would be the share of the tokens. Attention "
        f"does not tell which tokens change.\n\n{covered}\n\n{len(report['scenes'])} scene, "
        f"{report['steps']} steps. {report['device']}, torch {report['torch']}, commit "
        f"`{report['commit'][:12]}`."
    )
