"""Time against fidelity: the front, each system's fastest at a fidelity, and the README's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any

from turbo4d.tools.markdown import decibels, machine, table
from turbo4d.tools.rivals.choice import TARGETS_DB
from turbo4d.tools.rivals.state import OURS, UNCACHED

Row = Mapping[str, Any]


def row_of(
    system: str,
    knob: str,
    runs: Mapping[str, str],
    psnr_db: Sequence[float],
    seconds: Mapping[str, Mapping[str, Sequence[float]]],
    **more: Any,
) -> dict[str, Any]:
    """One setting's figures; seconds and speed-up are None where it was not timed.

    Args:
        system: whose.
        knob: its setting.
        runs: held-out scene -> the run that the setting makes of it.
        psnr_db: on each held-out scene.
        seconds: held-out scene -> run -> seconds of its timed runs, the uncached among them.
        more: what else the row shall hold.
    """
    timed = {scene: kept for scene, kept in seconds.items() if runs.get(scene) in kept}
    took = {scene: median(kept[runs[scene]]) for scene, kept in timed.items()}
    faster = [median(kept[UNCACHED]) / took[scene] for scene, kept in timed.items()]
    return {
        "system": system,
        "knob": knob,
        "seconds": round(median(took.values()), 4) if took else None,
        "speedup": round(median(faster), 3) if faster else None,
        "psnr_mean_db": round(mean(psnr_db), 2),
        "psnr_worst_db": round(min(psnr_db), 2),
        "plans": len(set(runs.values())),
        **more,
    }


def front(rows: Sequence[Row]) -> list[Row]:
    """The timed rows that no other beats in both time and mean PSNR, the fastest first."""
    found: list[Row] = []
    best = float("-inf")
    for row in sorted(_timed(rows), key=lambda row: (row["seconds"], -row["psnr_mean_db"])):
        if row["psnr_mean_db"] > best:
            found.append(row)
            best = row["psnr_mean_db"]
    return found


def fastest(rows: Sequence[Row], system: str, target_db: float) -> Row | None:
    """A system's fastest timed row whose mean PSNR reaches the target, None where none does."""
    able = [
        row for row in _timed(rows) if row["system"] == system and row["psnr_mean_db"] >= target_db
    ]
    return min(able, key=lambda row: row["seconds"], default=None)


def block(report: Mapping[str, Any] | None) -> str:
    """The README's table of every system's fastest setting at each fidelity.

    Args:
        report: of `measure/rivals.py`; None where there is none.
    """
    if report is None or not _timed(report["pareto"]):
        return "Not measured."
    rows = _timed(report["pareto"])
    systems = dict.fromkeys(row["system"] for row in rows)
    ordered = sorted(systems, key=lambda system: (system != OURS, -_speed(rows, system)))
    best = {target: max(_speed_at(rows, s, target) for s in systems) for target in TARGETS_DB}
    drawn = table(
        ("policy", *(f"at {target:g} dB or more" for target in TARGETS_DB)),
        [
            (system, *(_cell(rows, system, target, best[target]) for target in TARGETS_DB))
            for system in ordered
        ],
    )
    timing = report["timing"]
    return (
        f"{drawn}\n\nEach policy's fastest setting whose mean PSNR in the object over "
        f"{len(report['scenes'])} held-out scenes reaches the figure above it, and the mean and "
        "the worst scene it had; where none does, its best. Every policy and fewer steps run on "
        "turbo4d's own graphs, exact passes included; those that look at a sample see its scene's "
        "uncached run, and the look costs them nothing: all in their favour. Every knob was swept "
        f"on {len(report['screening'])} validation scenes apart from these, and what could be its "
        "fastest at a figure was judged on the held-out ones. Seconds are "
        f"medians of {len(timing['scenes'])} scenes and {timing['runs']} runs of each in turn; "
        f"uncached {report['uncached_seconds']:.2f} s. `{report['model']}`, {report['steps']} "
        f"steps, {report['dtype']}, lowering `{report['lowering']}`. {machine(timing)} "
        "GPU: not measured."
    )


def full_table(report: Mapping[str, Any]) -> str:
    """Every setting that was judged and timed, the fastest first; for tools/results/README.md."""
    rows = sorted(_timed(report["pareto"]), key=lambda row: row["seconds"])
    if not rows:
        return "Not measured."
    on_front = [id(row) for row in front(rows)]
    drawn = table(
        ("policy", "setting", "seconds", "speed-up", "PSNR in the object", "worst scene",
         "steps", "on the front"),
        [
            (
                row["system"],
                row["knob"],
                f"{row['seconds']:.2f} s",
                f"{row['speedup']:.2f}x",
                decibels(row["psnr_mean_db"]),
                decibels(row["psnr_worst_db"]),
                f"`{row['letters']}`" + (" and others" if row["plans"] > 1 else ""),
                "yes" if id(row) in on_front else "",
            )
            for row in rows
        ],
    )  # fmt: skip
    return (
        f"{drawn}\n\nSteps, of the first scene: C computed, K the core reused, L a level, c every "
        "chain, b blocks. PSNR is the mean over "
        f"{len(report['scenes'])} held-out scenes. {machine(report['timing'])}"
    )


def _timed(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["seconds"] is not None]


def _speed(rows: Sequence[Row], system: str) -> float:
    return sum(_speed_at(rows, system, target) for target in TARGETS_DB)


def _speed_at(rows: Sequence[Row], system: str, target: float) -> float:
    found = fastest(rows, system, target)
    return 0.0 if found is None else found["speedup"]


def _cell(rows: Sequence[Row], system: str, target: float, best: float) -> str:
    found = fastest(rows, system, target)
    if found is None:
        own = [row["psnr_mean_db"] for row in rows if row["system"] == system]
        return f"not reached: {max(own):.1f} dB"
    said = f"{found['speedup']:.2f}x"
    said = f"**{said}**" if found["speedup"] == best else said
    return f"{said} ({decibels(found['psnr_mean_db'])}, worst {decibels(found['psnr_worst_db'])})"
