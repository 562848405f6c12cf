"""A plan as a picture of steps x regions: a PNG, or a table for an HTML page.

`runtime/plan_text.py` draws the same in letters, for a terminal.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from turbo4d.runtime.plan import Plan, RegionInfo, Row

# What happens in a cell: its colour, its meaning.
MARKS: Mapping[str, tuple[str, str]] = {
    "compute": ("#1f4e79", "computed"),
    "reuse": ("#9ecae1", "reused from the slot"),
    "prune": ("#fdd49e", "pruned"),
    "bypass": ("#fb6a4a", "bypassed"),
    "inside": ("#e8e8e8", "inside a region that is reused or bypassed"),
    "idle": ("#ffffff", "the stream does not run"),
}
_ORDER = ("core", "level", "chain", "block")
_CELL_PX, _ROW_PX, _LEFT_PX, _TOP_PX = 26, 20, 190, 44


@dataclass(frozen=True)
class Line:
    """One line of the picture: a region, or several neighbours that are treated alike."""

    label: str
    cells: tuple[str, ...]  # a key of MARKS per step


def plan_lines(plan: Plan, regions: Sequence[RegionInfo]) -> list[Line]:
    """The picture's lines, stream by stream, the largest regions first.

    Regions of one kind with the same cells share a line. Levels and blocks show where the plan
    names one; the core and the chains always.

    Args:
        plan: one that passed its check.
        regions: of its model.
    """
    parents = {region.name: region.parent for region in regions}
    lines: list[Line] = []
    for stream, rows in plan.streams.items():
        named = {name for row in rows if row is not None for name in row}
        shown = {r.kind for r in regions if r.kind in ("core", "chain") or r.name in named}
        alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for region in sorted(regions, key=lambda region: _ORDER.index(region.kind)):
            if region.kind in shown:
                cells = tuple(_cell(region.name, parents, row) for row in rows)
                alike.setdefault((region.kind, cells), []).append(region.name)
        prefix = f"{stream}: " if len(plan.streams) > 1 else ""
        for (kind, cells), names in alike.items():
            label = names[0] if len(names) == 1 else f"{len(names)} {kind}s"
            lines.append(Line(prefix + label, cells))
    return lines


def _cell(name: str, parents: Mapping[str, str | None], row: Row) -> str:
    if row is None:
        return "idle"
    outer = parents[name]
    while outer is not None:
        if outer in row:
            return "inside"
        outer = parents[outer]
    return row[name].kind if name in row else "compute"


def write_plan_png(path: Path, rows: Sequence[Line], title: str) -> None:
    """Writes the picture as a PNG with labels and a legend."""
    steps = len(rows[0].cells)
    used = [key for key in MARKS if any(key in row.cells for row in rows)]
    size = (
        max(_LEFT_PX + steps * _CELL_PX + 10, 520),
        _TOP_PX + (len(rows) + len(used) + 1) * _ROW_PX + 10,
    )
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=13)
    draw.text((8, 4), title, fill="black", font=font)
    for step in range(steps):
        draw.text((_LEFT_PX + step * _CELL_PX + 5, 24), str(step), fill="black", font=font)
    for line, row in enumerate(rows):
        top = _TOP_PX + line * _ROW_PX
        draw.text((8, top + 2), row.label, fill="black", font=font)
        for step, cell in enumerate(row.cells):
            left = _LEFT_PX + step * _CELL_PX
            draw.rectangle((left, top, left + _CELL_PX - 3, top + _ROW_PX - 3), fill=MARKS[cell][0])
    for line, key in enumerate(used, start=len(rows) + 1):
        top = _TOP_PX + line * _ROW_PX
        draw.rectangle((8, top, 8 + _CELL_PX - 3, top + _ROW_PX - 3), fill=MARKS[key][0])
        draw.text((8 + _CELL_PX + 4, top + 2), MARKS[key][1], fill="black", font=font)
    page.save(path, format="PNG")


def plan_table(rows: Sequence[Line]) -> str:
    """The picture as an HTML table; its colours are in its style attributes."""
    head = "".join(f"<th>{step}</th>" for step in range(len(rows[0].cells)))
    body = "".join(
        f"<tr><th>{html.escape(row.label)}</th>"
        + "".join(
            f'<td style="background:{MARKS[c][0]}" title="{MARKS[c][1]}"></td>' for c in row.cells
        )
        + "</tr>"
        for row in rows
    )
    legend = "".join(
        f'<span style="background:{colour}">&nbsp;&nbsp;&nbsp;</span> {meaning} &emsp;'
        for key, (colour, meaning) in MARKS.items()
        if any(key in row.cells for row in rows)
    )
    return f'<table class="plan"><tr><th>step</th>{head}</tr>{body}</table><p>{legend}</p>'
