"""Heat maps: squares coloured by their value, a scale beside them, the value under the pointer."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence

from turbo4d.tools.calibration.page_axes import Scale, number, svg

# Anchors of viridis (van der Walt and Smith, 2015, CC0): as readable in grey and to colour-blind
# readers as in colour.
_VIRIDIS = (
    (68, 1, 84),
    (72, 40, 120),
    (62, 73, 137),
    (49, 104, 142),
    (38, 130, 142),
    (31, 158, 137),
    (53, 183, 121),
    (110, 206, 88),
    (181, 222, 43),
    (253, 231, 37),
)


def colour(share: float) -> tuple[str, str]:
    """The colour of a share from 0 to 1, and black or white, whichever is read better on it."""
    at = min(max(share, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    low = min(int(at), len(_VIRIDIS) - 2)
    mixed = [a + (b - a) * (at - low) for a, b in zip(*_VIRIDIS[low : low + 2], strict=True)]
    bright = 0.299 * mixed[0] + 0.587 * mixed[1] + 0.114 * mixed[2] > 125
    return "#" + "".join(f"{round(part):02x}" for part in mixed), "#000" if bright else "#fff"


def heat_map(
    cells: Sequence[Sequence[float | None]],
    scale: Scale,
    title: str,
    labels: tuple[str, str],
    say: Callable[[int, int, float], str],
    *,
    side: int,
    shown: bool = False,
) -> str:
    """A map of rows and columns; a cell without a value stays empty.

    Args:
        cells: [row][column].
        scale: from the darkest to the brightest colour.
        title: for readers who do not see it.
        labels: of the rows and of the columns.
        say: of a row, a column and its value what the pointer says.
        side: of a cell in pixels.
        shown: whether a cell bears its value.
    """
    rows, columns = len(cells), max(map(len, cells), default=0)
    left, top = 46, 40
    body = ""
    for row, values in enumerate(cells):
        for column, value in enumerate(values):
            if value is None or not math.isfinite(value):
                continue
            fill, ink = colour(scale.share(value))
            x, y = left + column * side, top + row * side
            body += (
                f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="{fill}">'
                f"<title>{html.escape(say(row, column, value))}</title></rect>"
            )
            if shown:
                body += (
                    f'<text x="{x + side / 2:g}" y="{y + side / 2 + 4:g}" text-anchor="middle" '
                    f'class="on" style="fill:{ink}">{value:.1f}</text>'
                )
    words = _indices(columns, lambda at: (left + (at + 0.5) * side, top - 5), "middle")
    words += _indices(rows, lambda at: (left - 5, top + (at + 0.5) * side + 4), "end")
    width, height = left + columns * side + 6, top + rows * side + 6
    words += f'<text x="{left}" y="15">{html.escape(labels[1])}</text>'
    words += (
        f'<text text-anchor="middle" transform="translate(13 {top + rows * side / 2:g}) '
        f'rotate(-90)">{html.escape(labels[0])}</text>'
    )
    return svg(width, height, title, f'{body}<g class="words">{words}</g>')


def colour_bar(scale: Scale, label: str) -> str:
    """What the colours of a heat map mean."""
    width, left, length = 300, 16, 268
    body = "".join(
        f'<rect x="{left + at * length / 40:g}" y="6" width="{length / 40 + 0.5:g}" height="14" '
        f'fill="{colour(at / 39)[0]}"/>'
        for at in range(40)
    )
    ticks = "".join(
        f'<path d="M{left + scale.share(value) * length:.1f} 20v4"/>' for value in scale.ticks(5)
    )
    words = "".join(
        f'<text x="{left + scale.share(value) * length:.1f}" y="37" text-anchor="middle">'
        f"{number(value)}</text>"
        for value in scale.ticks(5)
    )
    words += f'<text x="{width / 2:g}" y="54" text-anchor="middle">{html.escape(label)}</text>'
    body += f'<g class="grid">{ticks}</g><g class="words">{words}</g>'
    return f'<div class="bar-of-colours">{svg(width, 60, label, body)}</div>'


def _indices(count: int, place: Callable[[int], tuple[float, float]], anchor: str) -> str:
    every = 1 if count <= 10 else 5
    return "".join(
        f'<text x="{place(at)[0]:g}" y="{place(at)[1]:g}" text-anchor="{anchor}">{at}</text>'
        for at in range(0, count, every)
    )
