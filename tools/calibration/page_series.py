"""Series of a drawing, told apart by colour and by shape: lines, marks, their legend."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from turbo4d.tools.calibration.page_axes import Axes

# Okabe and Ito's colours, which colour-blind readers tell apart, without those that vanish on white
# or on black; the shape differs too, so that print without colour can be read.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DARK_COLOURS = ("#4aa8e8", "#f0763c", "#2bc49a", "#e39ac3", "#f2b53c", "#8fd0f7")
_DASHES = ("", "6 3", "2 3", "9 3 2 3")
_SHAPES = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z",  # circle
    "M-3.6 -3.6H3.6V3.6H-3.6Z",  # square
    "M0 -4.8L4.4 3.4H-4.4Z",  # triangle
    "M0 4.8L4.4 -3.4H-4.4Z",  # triangle, on its point
    "M0 -5.2L4.6 0L0 5.2L-4.6 0Z",  # diamond
    "M-1.5 -4.6H1.5V-1.5H4.6V1.5H1.5V4.6H-1.5V1.5H-4.6V-1.5H-1.5Z",  # plus
    "M0 -5.4L4.7 -2.7V2.7L0 5.4L-4.7 2.7V-2.7Z",  # hexagon
)
_POINTED = 24  # of so many series a legend's entry under the pointer makes the others fade
_STAR = "M0 -7.5L1.9 -2.4L7.1 -2.3L3 0.9L4.4 6.1L0 3.1L-4.4 6.1L-3 0.9L-7.1 -2.3L-1.9 -2.4Z"

SERIES_STYLE = (
    ":root { "
    + "".join(f"--c{at}: {colour}; " for at, colour in enumerate(COLOURS))
    + "}\n@media screen and (prefers-color-scheme: dark) { :root { "
    + "".join(f"--c{at}: {colour}; " for at, colour in enumerate(DARK_COLOURS))
    + "} }\n"
    + "".join(f".c{at} {{ --c: var(--c{at}); }}\n" for at in range(len(COLOURS)))
    + """.ours { --c: var(--ink); }
.line { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-linejoin: round; }
.mark { fill: var(--c); stroke: var(--paper); stroke-width: 1; }
.mark.hollow { fill: var(--paper); stroke: var(--c); stroke-width: 1.6; }
.series.ours .line { stroke-width: 3; }
.key { display: flex; flex-wrap: wrap; gap: 0 1.2em; font-size: 13px; padding: 0;
       list-style: none; margin: .3em 0 0 1em; }
.key svg { display: inline-block; width: 34px; height: 14px; margin-right: 5px;
           vertical-align: -3px; overflow: visible; }
"""
    + "".join(
        f"figure:has(.key .s{at}:is(:hover, :focus)) .series:not(.s{at}) {{ opacity: .15; }}\n"
        for at in range(_POINTED)
    )
)


@dataclass(frozen=True)
class Series:
    """Points that belong together.

    Args:
        name: in the legend.
        points: (x, y, what the pointer says), in the order of their line; None breaks it.
        index: which colour, shape and dash it has.
        ours: drawn to be seen first, with stars, whatever its index.
        hollow: per point whether its mark is hollow; empty: none is.
        scale: of its marks.
    """

    name: str
    points: Sequence[tuple[float, float, str] | None]
    index: int
    ours: bool = False
    hollow: Sequence[bool] = ()
    scale: float = 1.0

    @property
    def classes(self) -> str:
        """Of its group and of its entry in the legend."""
        colour = "ours" if self.ours else f"c{self.index % len(COLOURS)}"
        return f"series s{self.index} {colour}"

    @property
    def shape(self) -> str:
        """Of its marks, an SVG path around the origin."""
        return _STAR if self.ours else _SHAPES[self.index % len(_SHAPES)]

    def place(self, x: float, y: float) -> str:
        """Moves and scales the shape of a mark."""
        return f"translate({x} {y})" + (f" scale({self.scale})" if self.scale != 1 else "")

    @property
    def dash(self) -> str:
        """An attribute of its line."""
        pattern = "" if self.ours else _DASHES[self.index // len(COLOURS) % len(_DASHES)]
        return f' stroke-dasharray="{pattern}"' if pattern else ""


def draw_series(axes: Axes, series: Series, *, line: bool = True, marks: bool = True) -> str:
    """The line and the marks of one series in pixels of the axes."""
    path, pen = "", "M"
    shown = ""
    for at, point in enumerate(series.points):
        if point is None:
            pen = "M"
            continue
        x, y = axes.px(point[0]), axes.py(point[1])
        path, pen = f"{path}{pen}{x} {y}", "L"
        hollow = " hollow" if series.hollow and series.hollow[at] else ""
        shown += (
            f'<path class="mark{hollow}" d="{series.shape}" transform="{series.place(x, y)}">'
            f"<title>{html.escape(point[2])}</title></path>"
        )
    drawn = f'<path class="line" d="{path}"{series.dash}/>' if line and path else ""
    return f'<g class="{series.classes}">{drawn}{shown if marks else ""}</g>'


def legend(series: Sequence[Series], *, line: bool = True, marks: bool = True) -> str:
    """What the colours and shapes mean, as a list under the drawing."""
    entries = ""
    for one in series:
        stroke = f'<path class="line" d="M0 7H34"{one.dash}/>' if line else ""
        mark = (
            f'<path class="mark" d="{one.shape}" transform="{one.place(17, 7)}"/>' if marks else ""
        )
        entries += (
            f'<li class="{one.classes}" tabindex="0"><svg viewBox="0 0 34 14" aria-hidden="true">'
            f"{stroke}{mark}</svg>{html.escape(one.name)}</li>"
        )
    return f'<ul class="key">{entries}</ul>'


def rule(axes: Axes, y: float, text: str, *, left: bool = False) -> str:
    """A dashed level across the drawing, with what it is.

    Args:
        axes: of the drawing.
        y: the level.
        text: what it is.
        left: whether that stands at its left end, below it, where another rule is near above.
    """
    at, start, end = axes.py(y), axes.px(axes.x.low), axes.px(axes.x.high)
    x, below, anchor = (start + 6, at + 15, "start") if left else (end - 4, at - 5, "end")
    return (
        f'<path class="rule" d="M{start} {at}H{end}"/>'
        f'<text class="said" x="{x:g}" y="{below:g}" text-anchor="{anchor}">'
        f"{html.escape(text)}</text>"
    )
