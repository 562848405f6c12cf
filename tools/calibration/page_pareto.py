"""Latency against PSNR: every plan and every policy of others, on the same machinery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from turbo4d.tools.calibration.page_axes import Axes, scale_of
from turbo4d.tools.calibration.page_parts import (
    absent,
    decibels,
    fidelity,
    figure,
    finite,
    letters,
    seconds,
)
from turbo4d.tools.calibration.page_series import Series, draw_series, legend, rule
from turbo4d.tools.page_style import table
from turbo4d.tools.rivals.pareto import fastest, front

Point = Mapping[str, Any]

_CEILING_DB = 60.0  # beyond this nobody sees a difference; such points stand at the upper edge
_FLOORS_DB = (30.0, 35.0, 40.0)
OURS = "this plan"


def pareto_section(report: Mapping[str, Any]) -> str:
    """The plot, and the fastest of each system at a few qualities."""
    rows = _rows(report)
    others = {row["system"] for row in rows} - {OURS}
    if not rows:
        return absent("Latency against PSNR")
    note = "" if others else absent("Policies of others and fewer steps")
    return _plot(rows, report) + note + _fastest(rows, report.get("target_db"))


def is_ours(system: str) -> bool:
    """Whether a system is turbo4d itself, no policy of others on its machinery."""
    return system == OURS or system.startswith("turbo4d")


def _rows(report: Mapping[str, Any]) -> list[Point]:
    """The report's rows that can be drawn, and the plan itself."""
    rows = [dict(row) for row in report.get("pareto") or []]
    measured = report.get("measured") or {}
    judged = report.get("held_out") or report.get("calibration") or {}
    own = {
        "system": OURS,
        "knob": f"target {decibels(report.get('target_db'))}",
        "seconds": measured.get("seconds"),
        "speedup": measured.get("speedup"),
        "psnr_mean_db": judged.get("mean_db"),
        "psnr_worst_db": judged.get("worst_db"),
        "letters": report.get("letters"),
    }
    return [row for row in [own, *rows] if finite(row["seconds"]) and finite(row["psnr_mean_db"])]


def _plot(rows: Sequence[Point], report: Mapping[str, Any]) -> str:
    systems = sorted({row["system"] for row in rows}, key=lambda name: (not is_ours(name), name))
    target = report.get("target_db")
    baseline = (report.get("measured") or {}).get("uncached_seconds")
    times = [row["seconds"] for row in rows]
    shown = [min(row["psnr_mean_db"], _CEILING_DB) for row in rows]
    axes = Axes(
        scale_of([*times, baseline] if finite(baseline) else times, log=True),
        scale_of([*shown, target] if finite(target) else shown),
        "latency of one sample (s), logarithmic",
        f"{fidelity(report)}, mean (dB)",
        width=700,
        height=440,
    )
    body, series = "", []
    for index, system in enumerate(systems):
        of = [row for row in rows if row["system"] == system]
        best = front(of)
        rest = [row for row in of if row not in best]
        one = Series(
            system,
            [_point(row) for row in best],
            index,
            ours=is_ours(system),
            scale=1.6 if system == OURS else 1.0,
        )
        body = draw_series(axes, one) + body  # ours come last, so that they lie on top
        if rest:
            faint = Series(system, [_point(row) for row in rest], index, ours=one.ours)
            body = f'<g class="faint">{draw_series(axes, faint, line=False)}</g>' + body
        series.append(one)
    drawn = f"{_baseline(axes, baseline)}{_target(axes, target)}{body}"
    return (
        '<div class="pareto">'
        + figure(
            axes.draw("latency against PSNR of every plan and policy", drawn),
            "Up and to the left is better. A line joins what no other setting of the same system "
            f"beats; faint marks are beaten. A PSNR above {_CEILING_DB:g} dB stands at the upper "
            "edge. The pointer on a mark names its knob, speed-up and worst scene; on the legend "
            "it singles out a system.",
            legend(series),
        )
        + "</div>"
    )


def _point(row: Point) -> tuple[float, float, str]:
    speedup = f", {row['speedup']:.2f}x" if finite(row.get("speedup")) else ""
    said = (
        f"{row['system']}, {row['knob']}: {seconds(row['seconds'])}{speedup}, mean "
        f"{decibels(row['psnr_mean_db'])}, worst {decibels(row.get('psnr_worst_db'))}"
    )
    plan = letters(row.get("letters"))
    return (
        row["seconds"],
        min(row["psnr_mean_db"], _CEILING_DB),
        f"{said}; {plan}" if plan else said,
    )


def _baseline(axes: Axes, value: Any) -> str:
    if not finite(value):
        return ""
    at, low, high = axes.px(value), axes.py(axes.y.low), axes.first_y
    return (
        f'<path class="rule" d="M{at} {low}V{high}"/>'
        f'<text class="said" x="{at - 6}" y="{high + 12}" text-anchor="end">uncached</text>'
    )


def _target(axes: Axes, value: Any) -> str:
    return rule(axes, value, f"target {value:g} dB") if finite(value) else ""


def _fastest(rows: Sequence[Point], target: Any) -> str:
    """For a few qualities the fastest setting of each system."""
    floors = sorted({*_FLOORS_DB, float(target)} if finite(target) else _FLOORS_DB)
    body: list[tuple[str, ...]] = []
    for system in dict.fromkeys(row["system"] for row in rows):
        cells = []
        for floor in floors:
            best = fastest(rows, system, floor)
            cells.append(
                f"{seconds(best['seconds'])} ({decibels(best['psnr_mean_db'])}, {best['knob']})"
                if best
                else "none"
            )
        body.append((system, *cells))
    head = ("system", *(f"mean at least {floor:g} dB" for floor in floors))
    return (
        "<h3>The fastest of each system</h3>"
        + '<div class="whole">'
        + table(head, sorted(body, key=lambda row: (not is_ours(row[0]), row[0])))
        + "</div>"
        + ('<p class="note">A cell "none": no setting that was measured reaches it.</p>')
    )
