"""The PSNR that was measured: scene by scene, and over views and frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from turbo4d.tools.calibration.page_axes import Axes, Scale, scale_of
from turbo4d.tools.calibration.page_heat import colour_bar, heat_map
from turbo4d.tools.calibration.page_parts import (
    absent,
    beside,
    decibels,
    fidelity,
    figure,
    finite,
    paragraph,
)
from turbo4d.tools.calibration.page_series import Series, draw_series, legend, rule

_SETS = (("calibration", "calibration scenes"), ("held_out", "held-out scenes"))


def quality_section(report: Mapping[str, Any]) -> str:
    """Every scene against the target, and where in the asset the error sits."""
    missing = "".join(
        paragraph(f"The {name}: not measured.") for key, name in _SETS if not report.get(key)
    )
    return missing + beside(_scenes(report), _map(report.get("psnr_by_view_frame")))


def _scenes(report: Mapping[str, Any]) -> str:
    series = []
    for index, (key, name) in enumerate(_SETS):
        judged = report.get(key) or {}
        points = [
            (at, value, f"{name}, scene {scene}: {decibels(value)}")
            for at, (scene, value) in enumerate(
                zip(judged.get("scenes") or [], judged.get("psnr_db") or [], strict=False)
            )
            if finite(value)
        ]
        if points:
            words = f"{name}: mean {decibels(judged.get('mean_db'))}, worst "
            worst = decibels(judged.get("worst_db"))
            series.append(Series(words + worst, points, index))
    if not series:
        return absent("PSNR of each scene")
    target, slack = report.get("target_db"), report.get("worst_slack_db")
    rules = [(target, "target of the mean")] if finite(target) else []
    if finite(target) and finite(slack) and slack:
        rules.append((target - slack, "target of the worst"))
    values = [point[1] for one in series for point in one.points if point]
    longest = max(len(one.points) for one in series)
    axes = Axes(
        Scale(-0.7, longest - 0.3, counts=True),
        scale_of([*values, *(value for value, _ in rules)]),
        "scene, in the order of the report",
        f"{fidelity(report)} (dB)",
    )
    body = "".join(rule(axes, value, f"{text}, {value:g} dB") for value, text in rules)
    body += "".join(draw_series(axes, one, line=False) for one in series)
    return figure(
        axes.draw("PSNR of each scene", body),
        "Against the uncached sample of the same seed. The search has seen none of the held-out "
        "scenes.",
        legend(series, line=False),
    )


def _map(cells: Sequence[Sequence[float | None]] | None) -> str:
    values = [value for row in cells or [] for value in row if value is not None and finite(value)]
    if cells is None or not values:
        return absent("PSNR of each view and frame")
    low, high = math.floor(min(values)), math.ceil(max(values))
    scale = Scale(low, high if high > low else low + 1)
    columns = max(map(len, cells))
    side = max(16, min(56, 400 // columns))
    drawing = heat_map(
        cells,
        scale,
        "PSNR of each view and frame",
        ("view", "frame"),
        lambda row, column, value: f"view {row}, frame {column}: {decibels(value)}",
        side=side,
        shown=side >= 34,
    )
    width = 46 + columns * side + 6
    return (
        f'<figure><div style="max-width:{1.15 * width:.0f}px">{drawing}</div>'
        f"{colour_bar(scale, 'PSNR (dB)')}<figcaption>"
        "Where the error of the asset above sits, in the object: rows are views, columns frames."
        "</figcaption></figure>"
    )
