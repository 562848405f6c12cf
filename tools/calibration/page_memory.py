"""The slots in memory: how much is held at each step, and where each slot lies."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from turbo4d.tools.calibration.page_axes import Axes, Scale, scale_of
from turbo4d.tools.calibration.page_parts import (
    absent,
    beside,
    figure,
    finite,
    paragraph,
    size,
    step_axes,
)
from turbo4d.tools.calibration.page_series import COLOURS, rule

_NAME_PX = 60  # what a slot must be wide to bear its name


def memory_section(report: Mapping[str, Any], unit: str) -> str:
    """Bytes over the steps against the bound, and the slots as bars."""
    memory = report.get("memory") or {}
    live = [value for value in memory.get("live_bytes_by_step") or [] if finite(value)]
    if not live:
        return absent("Bytes held by slots")
    scale, word = _unit([*live, memory.get("bound"), memory.get("arena_bytes")])
    return beside(
        _timeline(report, memory, live, unit, scale, word),
        _layout(memory.get("slots") or [], len(live), report["plan"]["levels"], unit, scale, word),
    ) + _peaks(report)


def _unit(values: Sequence[Any]) -> tuple[float, str]:
    peak = max(value for value in values if finite(value))
    return next(
        (s, w)
        for s, w in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
        if peak >= s or s == 1.0
    )


def _timeline(
    report: Mapping[str, Any],
    memory: Mapping[str, Any],
    live: Sequence[float],
    unit: str,
    scale: float,
    word: str,
) -> str:
    bounds = {"bound": memory.get("bound"), "arena": memory.get("arena_bytes")}
    shown = [value / scale for value in [*live, *bounds.values()] if finite(value)]
    axes = step_axes(
        len(live),
        report["plan"]["levels"],
        unit,
        scale_of(shown, from_zero=True),
        f"bytes held by slots ({word})",
    )
    width, low = axes.px(1) - axes.px(0), axes.py(0)
    body = '<g class="c0">'
    for step, value in enumerate(live):
        y = axes.py(value / scale)
        body += (
            f'<rect class="column" x="{axes.px(step) - width / 2:.1f}" y="{y:g}" '
            f'width="{width:.1f}" height="{max(low - y, 0):.1f}"><title>step {step}: '
            f"{html.escape(size(value))}</title></rect>"
        )
    body += "</g>"
    for name, value in bounds.items():
        if finite(value):
            body += rule(
                axes,
                value / scale,
                f"{name} {size(value)}",
                left=name == "arena" and finite(memory.get("bound")),
            )
    said = "" if finite(bounds["bound"]) else " No bound was asked."
    return figure(
        axes.draw("bytes held by slots over the steps", body),
        f"What all live slots hold during each step.{said}",
    )


def _layout(
    slots: Sequence[Mapping[str, Any]],
    steps: int,
    levels: Sequence[float],
    unit: str,
    scale: float,
    word: str,
) -> str:
    """Each slot as a bar from the step that writes it to the last that reads it."""
    placed = [slot for slot in slots if finite(slot.get("offset"))]
    if not placed:
        return absent("Places of the slots")
    top = max(slot["offset"] + slot["bytes"] for slot in placed) / scale
    axes = step_axes(steps, levels, unit, Scale(0, top * 1.02), f"place in the arena ({word})")
    names = list(dict.fromkeys(slot["region"] for slot in placed))
    body = "".join(_slot(axes, slot, names.index(slot["region"]), scale) for slot in placed)
    key = "".join(
        f'<li class="c{index % len(COLOURS)}"><svg viewBox="0 0 34 14" aria-hidden="true">'
        f'<rect class="column" x="10" y="1" width="14" height="12"/></svg>{html.escape(name)}</li>'
        for index, name in enumerate(names)
    )
    return figure(
        axes.draw("places of the slots over the steps", body),
        "A bar is a slot, from the step that writes it to the last step that reads it; slots "
        "whose lives do not meet share bytes. The pointer names the region and the storage.",
        f'<ul class="key">{key}</ul>',
    )


def _slot(axes: Axes, slot: Mapping[str, Any], index: int, scale: float) -> str:
    width = axes.px(1) - axes.px(0)
    left = axes.px(slot["written"]) - 0.4 * width
    right = axes.px(slot["last_read"]) + 0.4 * width
    low, high = axes.py(slot["offset"] / scale), axes.py((slot["offset"] + slot["bytes"]) / scale)
    said = (
        f"{slot['region']}: written at step {slot['written']}, last read at step "
        f"{slot['last_read']}, {size(slot['bytes'])}, storage {slot.get('storage', 'compute')}"
    )
    name = (
        f'<text x="{(left + right) / 2:.1f}" y="{(low + high) / 2 + 4:.1f}" text-anchor="middle" '
        f'class="on">{html.escape(slot["region"])}</text>'
        if right - left > max(_NAME_PX, 7.5 * len(slot["region"])) and low - high > 14
        else ""
    )
    return (
        f'<g class="c{index % len(COLOURS)}"><rect class="slot" x="{left:.1f}" y="{high:g}" '
        f'width="{right - left:.1f}" height="{max(low - high, 1):.1f}"><title>{html.escape(said)}'
        f"</title></rect>{name}</g>"
    )


def _peaks(report: Mapping[str, Any]) -> str:
    predicted = (report.get("predicted") or {}).get("cache_peak_bytes")
    measured = (report.get("measured") or {}).get("cache_peak_bytes")
    return paragraph(f"Peak: predicted {size(predicted)}, measured {size(measured)}.")
