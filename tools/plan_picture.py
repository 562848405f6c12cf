"""A plan as a picture of steps x regions: a PNG, or a table for an HTML page.

`runtime/plan_text.py` says what stands in each line, and draws the same in letters.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from turbo4d.runtime.plan_text import LETTERS, Cell, Line

# What happens in a cell: its colour, its meaning.
MARKS: Mapping[Cell, tuple[str, str]] = {
    "compute": ("#1f4e79", "computed"),
    "reuse": ("#9ecae1", "reused from the slot"),
    "prune": ("#fdd49e", "pruned"),
    "bypass": ("#fb6a4a", "bypassed"),
    "inside": ("#e8e8e8", "inside a region that is reused or bypassed"),
    "idle": ("#ffffff", "the stream does not run"),
}
# The colours on a dark page: what works hardest stands out there too.
DARK_MARKS: Mapping[Cell, str] = {
    "compute": "#a8d1ff",
    "reuse": "#2f679f",
    "prune": "#e8c48a",
    "bypass": "#d4502e",
    "inside": "#2c3138",
    "idle": "#15181c",
}
_CELL_PX, _ROW_PX, _LEFT_PX, _TOP_PX = 26, 20, 190, 44
# Letters that a cell bears, so that it can be read without its colour.
_SHOWN: Mapping[Cell, str] = {cell: LETTERS[cell] for cell in ("reuse", "prune", "bypass")}
_BAR_PX = 60  # height of the bars: the operations of a step

_VARIABLES = (
    "".join(f"--{cell}: {colour}; " for cell, (colour, _) in MARKS.items()),
    "".join(f"--{cell}: {colour}; " for cell, colour in DARK_MARKS.items()),
)
PLAN_STYLE = (
    f"""
:root {{ {_VARIABLES[0]}}}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {_VARIABLES[1]}}} }}
"""
    + "".join(f".{cell} {{ background: var(--{cell}); }}\n" for cell in MARKS)
    + """.prune, .bypass { color: #15181c; }
table.plan { border-collapse: separate; border-spacing: 2px; }
table.plan td { width: 24px; min-width: 24px; height: 18px; padding: 0; text-align: center;
                font-size: 11px; line-height: 18px; }
table.plan th { padding: 0 8px 0 0; white-space: nowrap; }
table.plan tr > th:first-child { position: sticky; left: 0; background: var(--paper); }
table.plan tr:first-child > th:not(:first-child) { padding: 0; text-align: center; }
.legend span { margin-right: 1.4em; font-size: 13px; white-space: nowrap; }
.legend i { display: inline-block; width: 22px; height: 15px; margin-right: 6px; font-size: 11px;
            font-style: normal; line-height: 15px; text-align: center;
            border: 1px solid var(--line); vertical-align: -4px; overflow: hidden; }
"""
)


def labels(lines: Sequence[Line]) -> list[str]:
    """What stands left of each line; the stream too, where there are several."""
    several = len({line.stream for line in lines}) > 1
    return [f"{line.stream}: {line.label}" if several else line.label for line in lines]


def write_plan_png(path: Path, lines: Sequence[Line], shares: Sequence[float], title: str) -> None:
    """Writes the picture as a PNG with labels, bars and a legend.

    Args:
        path: the file.
        lines: of the plan.
        shares: for each step its operations, as a share of a call that computes everything.
        title: one line.
    """
    steps = len(shares)
    used: list[Cell] = [key for key in MARKS if any(key in line.cells for line in lines)]
    bars = _TOP_PX + len(lines) * _ROW_PX + 8
    legend = bars + _BAR_PX + 16
    size = (
        max(_LEFT_PX + steps * _CELL_PX + 10, 520),
        legend + len(used) * _ROW_PX + 10,
    )
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=13)
    draw.text((8, 4), title, fill="black", font=font)
    for step in range(steps):
        draw.text((_LEFT_PX + step * _CELL_PX + 5, 24), str(step), fill="black", font=font)
    for row, (line, label) in enumerate(zip(lines, labels(lines), strict=True)):
        top = _TOP_PX + row * _ROW_PX
        draw.text((8, top + 2), label, fill="black", font=font)
        for step, cell in enumerate(line.cells):
            left = _LEFT_PX + step * _CELL_PX
            draw.rectangle((left, top, left + _CELL_PX - 3, top + _ROW_PX - 3), fill=MARKS[cell][0])
    draw.text((8, bars + 2), "operations of a step", fill="black", font=font)
    draw.line((_LEFT_PX, bars + _BAR_PX, _LEFT_PX + steps * _CELL_PX - 3, bars + _BAR_PX), "gray")
    for step, share in enumerate(shares):
        left = _LEFT_PX + step * _CELL_PX
        top = bars + _BAR_PX - round(_BAR_PX * min(share, 1.0))
        draw.rectangle((left, top, left + _CELL_PX - 3, bars + _BAR_PX), fill=MARKS["compute"][0])
    for row, key in enumerate(used):
        top = legend + row * _ROW_PX
        draw.rectangle((8, top, 8 + _CELL_PX - 3, top + _ROW_PX - 3), MARKS[key][0], "#c0c0c0")
        draw.text((8 + _CELL_PX + 4, top + 2), MARKS[key][1], fill="black", font=font)
    page.save(path, format="PNG")


def plan_table(
    lines: Sequence[Line], notes: Mapping[tuple[str, str, int], str] | None = None
) -> str:
    """The picture as an HTML table, coloured by `PLAN_STYLE`; cells also bear their letters.

    Args:
        lines: of the plan.
        notes: by stream, region and step, what a cell says under the pointer beside its action.
    """
    head = "".join(f"<th>{step}</th>" for step in range(len(lines[0].cells)))
    body = "".join(
        f'<tr><th title="{html.escape(", ".join(line.names))}">{html.escape(label)}</th>'
        + "".join(_cell(line, step, notes or {}) for step in range(len(line.cells)))
        + "</tr>"
        for line, label in zip(lines, labels(lines), strict=True)
    )
    legend = "".join(
        f'<span><i class="{key}">{_SHOWN.get(key, "")}</i>{meaning}</span>'
        for key, (_, meaning) in MARKS.items()
        if any(key in line.cells for line in lines)
    )
    return (
        f'<div class="scroll"><table class="plan"><tr><th>step</th>{head}</tr>{body}</table></div>'
        f'<p class="legend">{legend}</p>'
    )


def _cell(line: Line, step: int, notes: Mapping[tuple[str, str, int], str]) -> str:
    cell = line.cells[step]
    said = f"step {step}: {MARKS[cell][1]}"
    if note := notes.get((line.stream, line.names[0], step)):
        said = f"{said}; {note}"
    return f'<td class="{cell}" title="{html.escape(said)}">{_SHOWN.get(cell, "")}</td>'
