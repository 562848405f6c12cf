"""The tables of README.md and tools/results/README.md that `turbo4d bench`'s reports give."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from turbo4d.tools.bench.table import megabytes, said
from turbo4d.tools.markdown import decibels, machine, table

Row = Mapping[str, Any]
Report = Mapping[str, Any]
NOT_MEASURED = "Not measured."
MAIN_GROUP = "20-steps"
_FIFTY_GROUP = "50-steps"
_HEADLINE = "balanced"
_OVERHEAD = "overhead"


def read_report(folder: Path, suite: str) -> Report | None:
    """The stored report of a suite, with the rows of further calls; None where there is none.

    Raises:
        ValueError: a further call was made on another machine, or measured a row again.
    """
    path = folder / f"bench-{suite}.json"
    if not path.exists():
        return None
    report = json.loads(path.read_text(encoding="utf-8"))
    for more in sorted(folder.glob(f"bench-{suite}-*.json")):
        further = json.loads(more.read_text(encoding="utf-8"))
        stored = {row["name"] for row in report["rows"]}
        known = stored & _baselines(further)
        rows = [row for row in further["rows"] if row["name"] not in known]
        again = stored & {row["name"] for row in rows}
        if further["machine"] != report["machine"] or again:
            raise ValueError(
                f"{more.name} does not go with {path.name}: it is of another machine, or measured "
                f"{', '.join(sorted(again)) or 'nothing'} again; measure both in one call."
            )
        report["rows"] = [*report["rows"], *rows]
    groups = list(dict.fromkeys(row["group"] for row in report["rows"]))
    report["rows"].sort(key=lambda row: groups.index(row["group"]))
    return report


def _baselines(report: Report) -> set[str]:
    """The first row of each group, which every call measures for itself."""
    first: dict[str, str] = {}
    for row in report["rows"]:
        first.setdefault(row["group"], row["name"])
    return set(first.values())


def headline(report: Report | None) -> str:
    """What preset `balanced` gains in 20 and in 50 steps, in a sentence."""
    parts: list[str] = []
    for group in (MAIN_GROUP, _FIFTY_GROUP):
        rows = {row["system"]: row for row in _fastest_of_each(_rows_of(report, group))}
        ours, inductor = rows.get(f"turbo4d:{_HEADLINE}"), rows.get("inductor")
        if ours is None or inductor is None:
            return NOT_MEASURED
        parts.append(
            f"in {group.replace('-', ' ')} {_speed(ours):.1f} times as fast as eager and "
            f"{_speed(ours) / _speed(inductor):.1f} times as fast as `torch.compile`, at "
            f"{decibels(ours['psnr_mask_db'])}"
        )
    return (
        f"On `nano`, trained, on a CPU, preset `{_HEADLINE}` is {'; '.join(parts)}. PSNR is "
        "against the uncached sample of the same seed, in the object."
    )


def cpu_block(report: Report | None) -> str:
    """Every system at its fastest on 20 steps of nano, the fastest first; and the overhead."""
    rows = _rows_of(report, MAIN_GROUP)
    if report is None or not rows:
        return NOT_MEASURED
    runs = min(row["runs"] for row in rows)
    return (
        f"{_systems_table(rows)}\n\nSuite `cpu`: `nano` ({rows[0]['weights']} weights), 20 steps, "
        "fp32, from noise to latent, compile time excluded; each system at the lowering or setting "
        f"in which it was fastest, medians of {runs} or more runs over {len(rows[0]['scenes'])} "
        "held-out scenes. "
        "Every row is a process of its own; those of a table took turns with eager, and ratios are "
        "to it in the same rounds. PSNR is against the uncached sample of the same seed, the mean "
        "over the scenes; resident memory is the process's, torch included. Compile is what the "
        "first sample took beyond a later one, with what earlier rows had left on disk. Policies "
        "and fewer steps have the setting that a sweep found for 35 dB, or the steps that fit a "
        f"preset's latency; `plan-N` is a stored plan calibrated to N dB.{_overhead(report)} "
        f"{_failed(report)}{machine_of(report, rows)}"
    )


def fifty_block(report: Report | None) -> str:
    """The same on 50 steps."""
    rows = _rows_of(report, _FIFTY_GROUP)
    if report is None or not rows:
        return NOT_MEASURED
    runs = min(row["runs"] for row in rows)
    return (
        f"{_systems_table(rows)}\n\nAs above, 50 steps; medians of {runs} or more runs. "
        f"{machine_of(report, rows)}"
    )


def _rows_of(report: Report | None, group: str) -> list[Row]:
    return [row for row in ran(report) if row["group"] == group] if report is not None else []


def _systems_table(rows: Sequence[Row]) -> str:
    inductor = max((_speed(row) for row in rows if row["system"] == "inductor"), default=None)
    return table(
        ("system", "as", "seconds a sample", "over eager", "over inductor", "PSNR in the object",
         "SSIM", "compile", "peak resident"),
        [_cpu_cells(row, inductor) for row in _fastest_of_each(rows)],
    )  # fmt: skip


def gpu_block(report: Report | None) -> str:
    """A table for each network, lowering and geometry."""
    if report is None:
        return NOT_MEASURED
    head = (
        "", "seconds", "over eager", "compile", "peak memory", "slots", "relative error", "note",
    )  # fmt: skip
    return f"{group_tables(report, head, _gpu_cells)}\n\n{_weights(report)}{machine_of(report)}"


def full_table(report: Report | None) -> str:
    """Every row of suite `cpu`, group by group; for tools/results/README.md."""
    if report is None:
        return NOT_MEASURED
    head = (
        "", "seconds", "fastest, slowest", "over eager", "PSNR in the object", "worst scene",
        "SSIM", "against ground truth", "compile", "peak resident", "note",
    )  # fmt: skip
    return f"{group_tables(report, head, _full_cells)}\n\n{machine_of(report)}"


def soak_line(report: Report | None) -> str:
    """What a soak found, in a sentence."""
    if report is None or report["rows"][0]["error"] is not None:
        return NOT_MEASURED
    row = report["rows"][0]
    resident = row["resident_bytes"]
    return (
        f"{row['sessions']} sessions of `nano` in one process: {megabytes(resident[0])} resident "
        f"after the first, {megabytes(resident[-1])} after the last, the last tenth's median "
        f"{row['growth']:+.2%} from the second tenth's; {row['slots_alive']} slots left, "
        f"{row['engines_built_later']} engines built and {row['recompiles']} recompilations after "
        f"the first session. {machine_of(report)}\n\n"
        "![megabytes resident after each session](bench-soak.png)"
    )


def ran(report: Report) -> list[Row]:
    return [row for row in report["rows"] if row["error"] is None]


def _speed(row: Row) -> float:
    return row["speedup"] or 1.0


def _fastest_of_each(rows: Sequence[Row]) -> list[Row]:
    """Of each system its fastest row, the fastest system first."""
    found: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: -_speed(row)):
        found.setdefault(row["system"], row)
    return list(found.values())


def _cpu_cells(row: Row, inductor: float | None) -> tuple[str, ...]:
    return (
        f"`{row['system']}`",
        " ".join(word for word in (row["lowering"], row["label"]) if word),
        f"{row['latency_s']:.3g} s",
        f"**{_speed(row):.2f}x**",
        "" if inductor is None else f"{_speed(row) / inductor:.2f}x",
        decibels(row["psnr_mask_db"]),
        said(row["ssim"], "{:.4f}"),
        said(row["compile_s"], "{:.0f} s"),
        megabytes(row["peak_bytes"]),
    )


def _full_cells(row: Row) -> tuple[str, ...]:
    spread = row["latency_spread"]
    return (
        name_of(row),
        said(row["latency_s"], "{:.4g} s"),
        "" if spread is None else f"{spread[0]:.4g} s, {spread[1]:.4g} s",
        said(row["speedup"], "{:.2f}x"),
        decibels_or_none(row["psnr_mask_db"]),
        decibels_or_none(row.get("psnr_mask_worst_db")),
        said(row["ssim"], "{:.4f}"),
        said(row["gt_psnr_db"], "{:.1f} dB"),
        said(row["compile_s"], "{:.1f} s"),
        megabytes(row["peak_bytes"]),
        row["error"] or row.get("note") or row.get("knob") or "",
    )


def _gpu_cells(row: Row) -> tuple[str, ...]:
    return (
        name_of(row),
        said(row["latency_s"], "{:.3g} s"),
        said(row["speedup"], "**{:.2f}x**"),
        said(row["compile_s"], "{:.0f} s"),
        megabytes(row["peak_bytes"]),
        megabytes(row.get("cache_peak_bytes")),
        said(row.get("relative_error"), "{:.1e}"),
        row["error"] or row.get("note") or "",
    )


def group_tables(
    report: Report, head: Sequence[str], cells: Callable[[Row], tuple[str, ...]]
) -> str:
    """A table for each group, its name at the head of the first column."""
    return "\n\n".join(
        table((name, *head[1:]), [cells(row) for row in rows])
        for name, rows in groupby(report["rows"], lambda row: row["group"])
    )


def name_of(row: Row) -> str:
    rest = " ".join(word for word in (row["lowering"], row["label"]) if word)
    return f"`{row['system']}` {rest}".rstrip()


def decibels_or_none(value: float | None) -> str:
    return "" if value is None else decibels(value)


def _overhead(report: Report) -> str:
    """What turbo4d costs per step, in a sentence."""
    found = {
        row["settings"]["place"]: row["latency_s"]
        for row in ran(report)
        if row["group"] == _OVERHEAD
    }
    if "runtime" not in found:
        return ""
    guards = found.get("front_door"), found.get("front_door_unguarded")
    told = (
        f"; torch's front door {guards[0] * 1e3:.2f} ms, {guards[1] * 1e3:.2f} ms without guards "
        "on modules"
        if guards[0] is not None and guards[1] is not None
        else ""
    )
    return f" The runtime itself takes {found['runtime'] * 1e3:.2f} ms of a step{told}."


def _failed(report: Report) -> str:
    count = len(report["rows"]) - len(ran(report))
    return f"{count} rows could not run. " if count else ""


def _weights(report: Report) -> str:
    random = any(row.get("weights") == "random" for row in report["rows"])
    return "Random weights: latency and memory only. " if random else ""


def machine_of(report: Report, rows: Sequence[Row] | None = None) -> str:
    """What rows were measured on, and every commit that they were measured at.

    Args:
        report: that holds the rows.
        rows: those that are shown; None for all.
    """
    shown = report["rows"] if rows is None else rows
    known = [row.get("commit") or report["commit"] or "unknown" for row in shown]
    commits = "`, `".join(commit[:12] for commit in dict.fromkeys(known))
    return machine(report["machine"], commits)
