"""What `generate` prints: the plan, the speed-up, and beside it every error and every rival."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turbo4d.tools.control import NAMES

TRIVIAL = {
    "white": "white",
    "mean_colour": "mean colour",
    "mean_conditioning": "mean of the conditioning images",
    "same_frame": "view 0 at the same frame",
    "same_view": "the same view at frame 0",
    "nearest": "the nearest conditioning image",
}


def headline(report: Mapping[str, Any]) -> str:
    """Two lines: what was run, and where."""
    rows = report["scenes"]
    scenes = rows[0]["name"] if len(rows) == 1 else f"medians of {len(rows)} scenes"
    return (
        f"{report['model']} ({report['weights']} weights), {scenes}, seed {report['seed']}, "
        f"{report['steps']} steps, plan {report['plan']}, {report['lowering']}, {report['dtype']}\n"
        f"{report['device']}, {report['threads']} threads, torch {report['torch']}, "
        f"commit {(report['commit'] or 'unknown')[:12]}, "
        f"weights sha256 {report['weights_sha256'][:12]}"
    )


def summary(report: Mapping[str, Any], plan: str) -> str:
    """The whole text of a comparison.

    Args:
        report: what report.json holds.
        plan: the plan as a picture in letters.
    """
    parts = [headline(report), plan, _speed(report), _fidelity(report), _truth(report),
             _controls(report)]  # fmt: skip
    if len(report["scenes"]) > 1:
        parts.append(_scenes(report))
    if report["events"]:
        parts.append("events\n" + "\n".join(f"  {event}" for event in report["events"]))
    return "\n\n".join(parts)


def _speed(report: Mapping[str, Any]) -> str:
    def side(name: str) -> str:
        low, high = report[f"{name}_spread_s"]
        return f"{name} {report[f'{name}_s']:.3f} s ({low:.3f} to {high:.3f})"

    runs = f"{report['runs']} run{'s' * (report['runs'] > 1)} of each, in turn"
    return (
        f"speed-up {report['speedup']:.2f}x   {side('baseline')}   {side('turbo')}   {runs}\n"
        f"compile {report['compile_s']:.1f} s, not included; {report['variants']} variants; "
        f"slots {_size(report['cache_peak_bytes'])}; weights {_size(report['weights_bytes'])}"
    )


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"


def _fidelity(report: Mapping[str, Any]) -> str:
    if report["psnr_db"] >= 200.0:
        return "turbo against the uncached sample: equal in every bit"
    return (
        "turbo against the uncached sample\n"
        f"  PSNR inside the object {report['psnr_mask_db']:.2f} dB   "
        f"all pixels {report['psnr_db']:.2f} dB   worst view {report['psnr_min_view_db']:.2f} dB   "
        f"SSIM {report['ssim']:.4f}"
    )


def _truth(report: Mapping[str, Any]) -> str:
    head = "against the ground truth (PSNR)"
    if report["gt_reason"]:
        return f"{head}: not measured, {report['gt_reason']}"
    lines = [f"{head:<48}{'object':>10}{'all':>10}"]
    pairs = {
        "uncached": (report["gt_psnr_mask_baseline_db"], report["gt_psnr_baseline_db"]),
        "turbo": (report["gt_psnr_mask_turbo_db"], report["gt_psnr_turbo_db"]),
    }
    for solver, figures in report["controls"].items():
        name = f"uncached, {figures['steps']} steps, {NAMES[solver]}"
        pairs[name] = (figures["gt_psnr_mask_db"], figures["gt_psnr_db"])
    for name, decibels in report["trivial_psnr_mask_db"].items():
        pairs[f"no model: {TRIVIAL.get(name, name)}"] = (decibels, report["trivial_psnr_db"][name])
    lines += [
        f"  {name:<46}{mask:>7.2f} dB{every:>7.2f} dB" for name, (mask, every) in pairs.items()
    ]
    return "\n".join(lines)


def _controls(report: Mapping[str, Any]) -> str:
    lines = ["the same time spent on fewer uncached steps (PSNR against the uncached sample)"]
    lines.append(f"  {'':<38}{'time':>9}{'object':>10}{'all':>10}")
    rows = [("turbo", report["turbo_s"], report["psnr_mask_db"], report["psnr_db"])]
    for solver, figures in report["controls"].items():
        name = f"{figures['steps']} steps, {NAMES[solver]}"
        rows.append((name, figures["seconds"], figures["psnr_mask_db"], figures["psnr_db"]))
    lines += [f"  {n:<38}{s:>7.3f} s{m:>7.2f} dB{a:>7.2f} dB" for n, s, m, a in rows]
    if report["whole_step"] is not None:
        lines.append(_whole_step(report["whole_step"], report["steps"]))
    gain = report["psnr_mask_db"] - report["control_psnr_mask_db"]
    word = "better" if gain >= 0 else "worse"
    lines.append(
        f"  turbo is {abs(gain):.2f} dB {word} inside the object than the better control "
        f"({NAMES[report['control_solver']]})"
    )
    return "\n".join(lines)


def _whole_step(figures: Mapping[str, Any], steps: int) -> str:
    return (
        f"  whole steps reused instead, down to the same PSNR: {figures['speedup']:.2f}x in "
        f"{figures['seconds']:.3f} s, {figures['computed_steps']} of {steps} steps computed, "
        f"{figures['psnr_mask_db']:.2f} dB object, {figures['psnr_db']:.2f} dB all"
    )


def _scenes(report: Mapping[str, Any]) -> str:
    lines = [
        f"  {'scene':<10}{'speed-up':>10}{'baseline':>11}{'turbo':>9}{'object':>11}{'all':>10}"
    ]
    for row in report["scenes"]:
        turbo = row["turbo"]
        lines.append(
            f"  {row['name']:<10}{row['speedup']:>9.2f}x{row['baseline']['seconds']:>9.3f} s"
            f"{turbo['seconds']:>7.3f} s{turbo['psnr_mask_db']:>8.2f} dB{turbo['psnr_db']:>7.2f} dB"
        )
    return "\n".join(lines)
