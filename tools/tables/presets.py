"""The presets alone as a table: the plans' own worth, with the same kernels on both sides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turbo4d.runtime.policy import KINDS


def read_reports(folder: Path) -> list[dict[str, Any]]:
    """Every report of `generate --compare` in a folder, the fastest last."""
    reports = [json.loads(path.read_text()) for path in sorted(folder.glob("generate-*.json"))]
    return sorted(reports, key=lambda report: report["speedup"])


def block(folder: Path) -> str:
    """The table as Markdown, with what it was measured on.

    Args:
        folder: of the reports.
    """
    reports = read_reports(folder)
    if not reports:
        return "Not measured."
    lines = [
        "| plan | regions | speed-up | PSNR in the object | SSIM "
        "| fewer uncached steps in that time | loss against ground truth |",
        "|---|---|---|---|---|---|---|",
        *map(_row, reports),
    ]
    first = reports[0]
    baseline = first["gt_psnr_mask_baseline_db"]
    trivial = max(first["trivial_psnr_mask_db"].values())
    runs = min(report["runs"] for report in reports)
    notes = (
        f"\nMedians of {len(first['scenes'])} held-out scenes, {runs} or more alternating runs of "
        f"each: `{first['model']}` ({first['weights']} weights, sha256 "
        f"`{first['weights_sha256'][:12]}`), {first['steps']} steps, {first['dtype']}, lowering "
        f"`{first['lowering']}` on both sides, from noise to latent, compile time excluded. "
        f"{first['device']}, {first['threads']} threads, torch {first['torch']}. PSNR is against "
        "the uncached sample of the same seed. Against the ground truth the uncached model reaches "
        f"{baseline:.1f} dB in the object, the best predictor without a model {trivial:.1f} dB. "
        "GPU: not measured."
    )
    return "\n".join(lines) + "\n" + notes


def _reused(calls: Mapping[str, int]) -> list[str]:
    """The kinds of regions that a plan's variants reuse, the largest first."""
    parts = [part for name in calls for part in name.split("+") if ".reuse" in part]
    return [kind for kind in ("step", *KINDS) if any(kind in part for part in parts)]


def _row(report: Mapping[str, Any]) -> str:
    loss = report["gt_psnr_mask_baseline_db"] - report["gt_psnr_mask_turbo_db"]
    exact = report["psnr_mask_db"] >= 200.0
    kinds = ", ".join(_reused(report["calls_by_variant"]))
    control = (
        f"{report['control_steps']} steps ({report['control_solver']}): "
        f"{report['control_psnr_mask_db']:.1f} dB"
    )
    cells = [
        f"`{report['plan']}`",
        "none" if exact else kinds,
        f"**{report['speedup']:.2f}x**",
        "equal in every bit" if exact else f"**{report['psnr_mask_db']:.1f} dB**",
        f"{report['ssim']:.4f}",
        control,
        f"{loss:+.2f} dB",
    ]
    return "| " + " | ".join(cells) + " |"
