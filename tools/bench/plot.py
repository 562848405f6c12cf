"""The picture of a report: how much faster each row is than its group's baseline, and how near."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from turbo4d.tools.bench.table import decibels, label_of

Row = Mapping[str, Any]
_LINE_PX, _LEFT_PX, _BAR_PX, _RIGHT_PX, _EDGE_PX = 22, 330, 560, 250, 16
_PAPER, _INK, _FAINT = (255, 255, 255), (40, 40, 40), (150, 150, 150)
_COLOURS = (
    ("turbo4d:", (32, 104, 168)),
    ("policy:", (200, 128, 48)),
    ("peer:", (200, 128, 48)),
    ("steps:", (150, 150, 150)),
    ("", (96, 96, 96)),
)


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Write a PNG: a bar a row, as long as it is faster than its baseline.

    Args:
        report: of a benchmark.
        path: of the picture.
    """
    groups = [(name, list(rows)) for name, rows in groupby(report["rows"], lambda r: r["group"])]
    lines = sum(len(rows) + 2 for _, rows in groups)
    size = (_LEFT_PX + _BAR_PX + _RIGHT_PX, lines * _LINE_PX + 2 * _EDGE_PX)
    page = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(page)
    top = _EDGE_PX
    for name, rows in groups:
        _write(pen, _EDGE_PX, top, f"{name}: times as fast as {label_of(rows[0])}", _INK)
        longest = max([1.0, *(row["speedup"] or 0.0 for row in rows)])
        for row in rows:
            top += _LINE_PX
            _draw_row(pen, top, row, longest, row is rows[0])
        top += 2 * _LINE_PX
    page.save(path, format="PNG")


def _draw_row(pen: ImageDraw.ImageDraw, top: int, row: Row, longest: float, first: bool) -> None:
    _write(pen, _EDGE_PX, top, label_of(row), _INK)
    if row["error"] is not None or row["latency_s"] is None:
        _write(pen, _LEFT_PX, top, "could not run", _FAINT)
        return
    faster = 1.0 if first else row["speedup"]
    if faster is None:
        _write(pen, _LEFT_PX, top, f"{row['latency_s']:.3g} s", _INK)
        return
    end = _LEFT_PX + round(_BAR_PX * faster / longest)
    box = (_LEFT_PX, top + 2, end, top + _LINE_PX - 5)
    pen.rectangle(box, fill=_colour(row["system"]))
    near = decibels(row["psnr_mask_db"])
    _write(pen, end + 6, top, f"{faster:.2f}x  {row['latency_s']:.3g} s  {near}", _INK)


def _colour(system: str) -> tuple[int, int, int]:
    return next(colour for start, colour in _COLOURS if system.startswith(start))


def _write(pen: ImageDraw.ImageDraw, left: int, top: int, text: str, ink: Any) -> None:
    pen.text((left, top), text, fill=ink, font=ImageFont.load_default(13))
