"""Predicted against measured: quality over many plans, time over the steps; the whole frontier."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from turbo4d.tools.calibration.page_axes import Axes, number, scale_of
from turbo4d.tools.calibration.page_parts import (
    absent,
    beside,
    decibels,
    figure,
    finite,
    letters,
    paragraph,
    seconds,
    step_axes,
)
from turbo4d.tools.calibration.page_series import Series, draw_series
from turbo4d.tools.page_style import table


def prediction_section(report: Mapping[str, Any], unit: str) -> str:
    """A scatter of PSNR and bars of time, each predicted and measured."""
    return beside(_scatter(report.get("predictor")), _bars(report, unit)) + _totals(report)


def frontier_section(report: Mapping[str, Any]) -> str:
    """What each budget of error costs in time, as the search found it."""
    rows = [row for row in report.get("frontier") or [] if finite(row["predicted_seconds"])]
    drawn = [row for row in rows if finite(row["budget_db"])]
    if not drawn:
        return absent("Frontier")
    points = [
        (
            row["budget_db"],
            row["predicted_seconds"],
            f"budget {row['budget_db']:g} dB: {seconds(row['predicted_seconds'])}, "
            f"{'proven optimal' if row['proven'] else 'not proven optimal'}; "
            f"{letters(row['letters'])}",
        )
        for row in drawn
    ]
    series = Series(
        "fastest plan within the budget",
        points,
        0,
        hollow=[not row["proven"] for row in drawn],
        scale=1.0 if len(drawn) < 40 else 0.6,
    )
    axes = Axes(
        scale_of([point[0] for point in points]),
        scale_of([point[1] for point in points], from_zero=True),
        "budget: predicted PSNR at least (dB)",
        "predicted latency (s)",
    )
    proven = sum(bool(row["proven"]) for row in drawn)
    return (
        '<div class="narrow">'
        + figure(
            axes.draw("predicted latency over the budget", draw_series(axes, series)),
            "For each budget the fastest plan that the search found. A filled mark: the solver "
            "proved that the cost model has no faster plan within the bounds; a hollow one: not. "
            f"Proven: {proven} of {len(drawn)}.",
        )
        + f"</div>{_budgets(rows)}"
    )


def _budgets(rows: Sequence[Mapping[str, Any]]) -> str:
    """The plans of the frontier, each with the budgets it is for."""
    plans: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for row in rows:
        plans.setdefault((letters(row["letters"]), row["predicted_seconds"]), []).append(row)
    body = [
        (
            _span([row["budget_db"] for row in of]),
            seconds(predicted),
            "yes" if all(row["proven"] for row in of) else "no",
            decibels(of[0].get("psnr_mean_db")),
            decibels(of[0].get("psnr_worst_db")),
            spelled,
        )
        for (spelled, predicted), of in plans.items()
    ]
    head = ("budgets", "predicted", "optimum proven", "mean measured", "worst measured", "plan")
    listed = table(head, body)
    return f"<details><summary>All {len(body)} plans of the frontier</summary>{listed}</details>"


def _span(budgets: Sequence[Any]) -> str:
    held = [f"{value:g}" for value in budgets if finite(value)]
    if not held:
        return "no error"
    return f"{held[0]} dB" if held[0] == held[-1] else f"{held[0]} to {held[-1]} dB"


def _scatter(predictor: Mapping[str, Any] | None) -> str:
    pairs = [
        (float(pair[0]), float(pair[1]))
        for pair in (predictor or {}).get("points") or []
        if finite(pair[0]) and finite(pair[1])
    ]
    if predictor is None or not pairs:
        return absent("Predicted against measured PSNR")
    both = scale_of([value for pair in pairs for value in pair])
    axes = Axes(both, both, "predicted PSNR (dB)", "measured PSNR (dB)")
    points = [(x, y, f"predicted {decibels(x)}, measured {decibels(y)}") for x, y in pairs]
    line = f"M{axes.px(both.low)} {axes.py(both.low)}L{axes.px(both.high)} {axes.py(both.high)}"
    body = f'<path class="rule" d="{line}"/>'
    body += f'<g class="crowd">{draw_series(axes, Series("", points, 0), line=False)}</g>'
    rank = predictor.get("spearman")
    said = f"rank correlation (Spearman) {rank:.3f}" if finite(rank) else "rank correlation: absent"
    return figure(
        axes.draw("measured over predicted PSNR", body),
        f"{predictor.get('n', predictor.get('plans', len(pairs)))} plans that were run; {said}. "
        "On the dashed line the prediction is right; below it, it promised too much.",
    )


def _bars(report: Mapping[str, Any], unit: str) -> str:
    """Predicted and measured time of each step, side by side."""
    predicted = (report.get("predicted") or {}).get("seconds_by_step") or []
    measured = (report.get("measured") or {}).get("seconds_by_step") or []
    values = [1e3 * value for value in [*predicted, *measured] if finite(value)]
    if not values:
        return absent("Time of each step")
    steps = max(len(predicted), len(measured))
    levels = report["plan"]["levels"]
    axes = step_axes(steps, levels, unit, scale_of(values, from_zero=True), "time of a step (ms)")
    pairs = (("predicted", predicted, 0), ("measured", measured, 1))
    drawn = [(name, each, index) for name, each, index in pairs if each]
    width = (axes.px(1) - axes.px(0)) * 0.8 / len(drawn)
    body = ""
    for place, (name, each, index) in enumerate(drawn):
        body += f'<g class="c{index}">'
        for step, value in enumerate(each):
            if finite(value):
                x = axes.px(step) + (place - len(drawn) / 2) * width
                y, low = axes.py(1e3 * value), axes.py(0)
                body += (
                    f'<rect class="column" x="{x:.1f}" y="{y:g}" width="{width:.1f}" '
                    f'height="{max(low - y, 0.5):.1f}"><title>step {step}, {name}: '
                    f"{html.escape(seconds(value))}</title></rect>"
                )
        body += "</g>"
    key = "".join(
        f'<li class="c{index}"><svg viewBox="0 0 34 14" aria-hidden="true"><rect class="column" '
        f'x="10" y="1" width="14" height="12"/></svg>{name}</li>'
        for name, _, index in drawn
    )
    missing = "" if measured else "The time of each step was not measured. "
    said = f"{missing}Predicted by the cost model from the graph and the rates of the machine."
    return figure(axes.draw("time of each step", body), said, f'<ul class="key">{key}</ul>')


def _totals(report: Mapping[str, Any]) -> str:
    """Time, PSNR and bytes of the whole plan, as a sentence."""
    predicted, measured = report.get("predicted") or {}, report.get("measured") or {}
    judged = report.get("calibration") or {}
    parts = [
        f"latency predicted {seconds(predicted.get('seconds'))}, measured "
        f"{seconds(measured.get('seconds'))}",
        f"PSNR predicted {decibels(predicted.get('psnr_db'))}, measured on the calibration scenes "
        f"{decibels(judged.get('mean_db'))}",
    ]
    first, second = predicted.get("seconds"), measured.get("seconds")
    if finite(first) and finite(second) and second:
        share = round(100 * (first / second - 1), 1)
        parts.append(
            f"the predicted time is {number(abs(share))} % {'below' if share < 0 else 'above'} "
            "the measured"
        )
    return paragraph("The whole plan: " + "; ".join(parts) + ".")
