"""How the network's values change from step to step, and what a change costs the final sample."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from turbo4d.tools.calibration.page_axes import Scale, number, scale_of
from turbo4d.tools.calibration.page_heat import colour_bar, heat_map
from turbo4d.tools.calibration.page_parts import absent, beside, figure, finite, step_axes
from turbo4d.tools.calibration.page_series import Series, draw_series, legend


def drift_section(report: Mapping[str, Any], unit: str) -> str:
    """Curves of the change and of its price, and the matrix of changes.

    Args:
        report: of the calibration.
        unit: of the levels.
    """
    drift = report.get("drift") or {}
    levels = drift.get("levels") or report["plan"]["levels"]
    curves = _curves(
        drift.get("curves"),
        levels,
        unit,
        "relative change, no unit",
        "What each group of regions gives, compared with the step before: the norm of the "
        "difference over the norm of the value. Low means that reuse is cheap.",
    )
    gains = _curves(
        report.get("gains"),
        levels,
        unit,
        "final error per unit of change",
        "What one unit of relative change, admitted at one step by a move, adds to the error of "
        "the final sample.",
    )
    return (
        beside(
            curves or absent("Drift"),
            gains or absent("Gain"),
        )
        + "<h3>Change from one step to another</h3>"
        + (_matrices(drift.get("matrix") or {}) or absent("Change between steps"))
    )


def _curves(
    values: Mapping[str, Sequence[float | None]] | None,
    levels: Sequence[float],
    unit: str,
    label: str,
    caption: str,
) -> str:
    """A line for each name over the steps, "" where there is none to draw."""
    series = [
        Series(name, [_point(name, step, value) for step, value in enumerate(curve)], index)
        for index, (name, curve) in enumerate((values or {}).items())
    ]
    ys = [point[1] for one in series for point in one.points if point]
    if not ys:
        return ""
    axes = step_axes(len(levels), levels, unit, scale_of(ys, log=True), label)
    body = "".join(draw_series(axes, one) for one in series)
    return figure(axes.draw(f"{label} over the steps", body), caption, legend(series))


def _point(name: str, step: int, value: float | None) -> tuple[float, float, str] | None:
    if value is None or not finite(value) or value <= 0:
        return None
    return step, value, f"{name}, step {step}: {number(value)}"


def _matrices(matrices: Mapping[str, Sequence[Sequence[float | None]]]) -> str:
    """A heat map for each group, all on one scale."""
    values = [
        value
        for rows in matrices.values()
        for row in rows
        for value in row
        if value is not None and finite(value) and value > 0
    ]
    if not values:
        return ""
    low, high = max(min(values), 1e-4), max(values)
    scale = Scale(low, high if high > low else 2 * low, log=True)
    maps = "".join(
        f"<figure>{_matrix(name, rows, scale)}<figcaption>{html.escape(name)}</figcaption></figure>"
        for name, rows in matrices.items()
    )
    return f'<div class="maps">{maps}</div>{colour_bar(scale, "relative change, no unit")}'


def _matrix(name: str, rows: Sequence[Sequence[float | None]], scale: Scale) -> str:
    positive = [[value if value else None for value in row] for row in rows]
    return heat_map(
        positive,
        scale,
        f"relative change of {name} between any two steps",
        ("from step", "to step"),
        lambda row, column, value: f"{name}, from step {row} to step {column}: {number(value)}",
        side=max(4, 200 // max(len(rows), 1)),
    )
