"""Writes the figures of README.md and tools/results/README.md from the reports stored beside it.

Example:
    python tools/readme_figures.py            # rewrite both
    python tools/readme_figures.py --check    # exit 1 where one is not what the reports say
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from turbo4d.runtime.policy import KINDS
from turbo4d.tools import bench_tables, bundle_tables, foreign_table
from turbo4d.tools.result_tables import tables
from turbo4d.tools.rivals import pareto

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "tools" / "results"
TABLES = RESULTS / "README.md"
FOREIGN = RESULTS / "foreign.json"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
FOREIGN_BEGIN, FOREIGN_END = "<!-- foreign:begin -->", "<!-- foreign:end -->"
PARETO = RESULTS / "pareto-nano-v1.json"
BUNDLES_BEGIN, BUNDLES_END = "<!-- bundles:begin -->", "<!-- bundles:end -->"
PARETO_BEGIN, PARETO_END = "<!-- pareto:begin -->", "<!-- pareto:end -->"
BENCHES = {
    "cpu": bench_tables.cpu_block,
    "peers": bench_tables.peers_block,
    "gpu": bench_tables.gpu_block,
}


def read_reports(folder: Path) -> list[dict[str, Any]]:
    """Every report of `generate --compare` in a folder, the fastest last."""
    reports = [json.loads(path.read_text()) for path in sorted(folder.glob("generate-*.json"))]
    return sorted(reports, key=lambda report: report["speedup"])


def block(reports: Sequence[Mapping[str, Any]]) -> str:
    """The README's figures as Markdown."""
    if not reports:
        return "Not measured yet."
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


def with_block(readme: str, figures: str, begin: str = BEGIN, end: str = END) -> str:
    """The README with what stands between two markers replaced."""
    head, _, rest = readme.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n{figures}\n{end}{tail}"


def bench_blocks() -> dict[tuple[str, str], str]:
    """Of each suite of `turbo4d bench` its markers, and what stands between them."""
    return {
        (f"<!-- bench-{suite}:begin -->", f"<!-- bench-{suite}:end -->"): draw(
            bench_tables.read_report(RESULTS, suite)
        )
        for suite, draw in BENCHES.items()
    }


def with_figures(readme: str) -> str:
    """The README with every block as the stored reports give it."""
    foreign = json.loads(FOREIGN.read_text()) if FOREIGN.exists() else None
    measured = json.loads(PARETO.read_text()) if PARETO.exists() else None
    readme = with_block(readme, block(read_reports(RESULTS)))
    readme = with_block(readme, bundle_tables.block(RESULTS), BUNDLES_BEGIN, BUNDLES_END)
    readme = with_block(readme, pareto.block(measured), PARETO_BEGIN, PARETO_END)
    for (begin, end), figures in bench_blocks().items():
        readme = with_block(readme, figures, begin, end)
    return with_block(readme, foreign_table.block(foreign), FOREIGN_BEGIN, FOREIGN_END)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the README's figures from stored reports.")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    args = parser.parse_args(argv)
    wanted = {
        README: with_figures(README.read_text()),
        TABLES: tables(RESULTS),
    }
    if args.check:
        return int(any(not p.exists() or p.read_text() != text for p, text in wanted.items()))
    for path, text in wanted.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
