"""The picture of a soak: resident memory after each session."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 960, 360, 90, 44, 36
_PAPER, _INK, _FAINT, _CURVE = (255, 255, 255), (40, 40, 40), (215, 215, 215), (32, 104, 168)
_LINES = 4


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Write a PNG: the curve, from 0, and the two tenths that are compared.

    Args:
        report: of suite `soak`.
        path: of the picture.
    """
    page = Image.new("RGB", (_WIDTH, _HEIGHT), _PAPER)
    pen = ImageDraw.Draw(page)
    row = report["rows"][0]
    resident: Sequence[int] = row.get("resident_bytes") or ()
    if resident:
        _draw(pen, resident)
        title = f"MB resident after each of {len(resident)} sessions: {row['note']}"
    else:
        title = f"could not run: {row['error']}"
    _write(pen, 16, 14, title)
    page.save(path, format="PNG")


def _draw(pen: ImageDraw.ImageDraw, resident: Sequence[int]) -> None:
    high = max(resident) * 1.1
    floor, right = _HEIGHT - _BOTTOM, _WIDTH - 20

    def place(session: float, size: float) -> tuple[float, float]:
        share = session / max(1, len(resident) - 1)
        return _LEFT + share * (right - _LEFT), floor - size / high * (floor - _TOP)

    for line in range(_LINES + 1):
        size = high * line / _LINES
        _, top = place(0, size)
        pen.line((_LEFT, top, right, top), fill=_FAINT)
        _write(pen, 30, round(top) - 8, f"{size / 1e6:.0f}")
    tenth = max(1, len(resident) // 10)
    for begin in (tenth, len(resident) - tenth):
        middle = statistics.median(resident[begin : begin + tenth] or resident)
        pen.line((*place(begin, middle), *place(begin + tenth - 1, middle)), fill=_INK, width=5)
    pen.line([place(at, size) for at, size in enumerate(resident)], fill=_CURVE, width=2)
    _write(pen, _LEFT, floor + 10, "1")
    _write(pen, right - 24, floor + 10, str(len(resident)))


def _write(pen: ImageDraw.ImageDraw, left: int, top: int, text: str) -> None:
    pen.text((left, top), text, fill=_INK, font=ImageFont.load_default(13))
