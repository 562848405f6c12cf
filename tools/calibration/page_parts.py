"""Pieces that the sections of the calibration's page share: figures, texts, what is absent."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from turbo4d.compiler.explain_text import bytes_text
from turbo4d.tools.calibration.page_axes import Axes, Scale, number

ABSENT = "not measured"

PARTS_STYLE = """
nav { font-size: 13px; margin-top: .8em; }
nav a { margin-right: 1.1em; color: inherit; white-space: nowrap; }
h3 { font-size: 1em; margin: 1.2em 0 .3em; }
.figures { display: grid; gap: 1em 1.6em;
           grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr)); }
figure { margin: .6em 0; min-width: 0; break-inside: avoid; }
figure svg { width: 100%; height: auto; display: block; }
figcaption, .note { display: block; font-size: 13px; color: var(--faint); margin-top: .3em; }
svg text { font: 12.5px sans-serif; fill: var(--ink); }
svg .words text { fill: var(--faint); }
svg .grid path { stroke: var(--line); stroke-width: 1; opacity: .55; fill: none; }
svg .frame { fill: none; stroke: var(--faint); stroke-width: 1; }
svg .rule { fill: none; stroke: var(--ink); stroke-width: 1.3; stroke-dasharray: 5 4; }
svg text.said { font-size: 12px; paint-order: stroke; stroke: var(--paper); stroke-width: 4px; }
.column { fill: var(--c); } .slot { fill: var(--c); stroke: var(--paper); stroke-width: 1; }
svg text.on { font-size: 12px; fill: #000; pointer-events: none; }
.faint { opacity: .35; } .crowd { opacity: .6; }
.facts td:first-child { white-space: nowrap; } .facts td { overflow-wrap: anywhere; }
.absent { color: var(--faint); font-style: italic; }
.narrow figure { max-width: 520px; } .whole td { white-space: nowrap; }
.pareto figure { max-width: 820px; }
@media (max-width: 600px) { .pareto svg text { font-size: 17px; } }
.tiles { display: grid; gap: .7em;
         grid-template-columns: repeat(auto-fit, minmax(min(100%, 190px), 1fr)); }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 6px;
             padding: .5em .8em; }
.tiles b { display: block; font-size: 1.45em; font-weight: 600; }
.tiles span { font-size: 13px; color: var(--faint); }
.maps { display: grid; gap: .8em; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); }
.bar-of-colours { max-width: 340px; }
@media (max-width: 600px) {
  .maps { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); } }
@media print { body { font-size: 12px; margin: 0; } h2, h3 { break-after: avoid; }
               nav { display: none; } .scroll { overflow: visible; }
               .figures { grid-template-columns: 1fr 1fr; }
               .maps { grid-template-columns: repeat(4, 1fr); }
               .pareto figure { max-width: 560px; } .narrow figure { max-width: 420px; } }
"""


def absent(what: str) -> str:
    """A line in the place of a part that the report does not hold."""
    return f'<p class="absent">{html.escape(what)}: {ABSENT}</p>'


def figure(drawing: str, caption: str, legend: str = "") -> str:
    """A drawing with its legend and one or two sentences.

    Args:
        drawing: SVG.
        caption: plain text.
        legend: HTML.
    """
    return f"<figure>{drawing}{legend}<figcaption>{html.escape(caption)}</figcaption></figure>"


def beside(*figures: str) -> str:
    """Figures side by side where there is room."""
    return f'<div class="figures">{"".join(figures)}</div>'


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def finite(value: object) -> TypeGuard[float]:
    """Whether a value of the report is a number that can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def fidelity(report: Mapping[str, Any]) -> str:
    """What judges samples, in words: as the report says, else PSNR."""
    return str(report.get("fidelity") or "PSNR")


def decibels(value: Any) -> str:
    """A PSNR in words."""
    return f"{value:.1f} dB" if finite(value) else ABSENT


def letters(value: Any) -> str:
    """A plan's letters, one a step; streams are told apart where there are several."""
    if not isinstance(value, Mapping):
        return str(value or "")
    if len(value) == 1:
        return str(next(iter(value.values())))
    return ", ".join(f"{stream} {each}" for stream, each in value.items())


def seconds(value: Any) -> str:
    """A duration in words: "235 ms", "1.08 s"."""
    if not finite(value):
        return ABSENT
    if value < 1.0:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if value < 100 else f"{value:.0f} s"


def size(value: Any) -> str:
    """Bytes in words."""
    return bytes_text(int(value)) if finite(value) else ABSENT


def step_axes(
    steps: int,
    levels: Sequence[float],
    unit: str,
    y: Scale,
    y_label: str,
) -> Axes:
    """Axes over the steps, with their levels above.

    Args:
        steps: how many.
        levels: of each step; may be empty.
        unit: of the levels.
        y: the other axis.
        y_label: what it is, with its unit.
    """
    shown = sorted({round(at * (steps - 1) / 5) for at in range(6)})
    ticks = [
        (float(step), number(float(f"{levels[step]:.3g}"))) for step in shown if step < len(levels)
    ]
    top = (f"level ({unit})", ticks) if ticks else None
    return Axes(Scale(-0.6, steps - 0.4, counts=True), y, "step", y_label, top=top)
