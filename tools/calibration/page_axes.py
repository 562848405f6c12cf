"""Axes of a drawing: what a value is in pixels, the ticks, the labels; SVG without a library."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TOP_PX, RIGHT_PX, BOTTOM_PX, LEFT_PX = 40, 14, 46, 68


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` along one axis.

    Args:
        low: at the axis' start.
        high: at its end, above `low`.
        log: whether equal ratios are equal lengths; then `low` is above 0.
        counts: whether only whole numbers have a meaning.
    """

    low: float
    high: float
    log: bool = False
    counts: bool = False

    def share(self, value: float) -> float:
        """Where a value lies between the ends, 0 to 1; one beyond them lies at the end."""
        low, high, at = (
            (math.log(self.low), math.log(self.high), math.log(max(value, self.low)))
            if self.log
            else (self.low, self.high, value)
        )
        return min(max((at - low) / (high - low), 0.0), 1.0)

    def ticks(self, wanted: int = 6) -> list[float]:
        """Round values within the scale, about as many as wanted."""
        if self.log and self.high / self.low >= 1000:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            every = max(1, math.ceil((last - first + 1) / wanted))
            return [10.0**power for power in range(first, last + 1, every)]
        if self.log and self.high / self.low >= 6:
            digits = (1, 3) if self.high / self.low >= 30 else (1, 1.5, 2, 3, 5, 7)
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [digit * 10.0**power for power in powers for digit in digits]
        else:
            step = _round_step((self.high - self.low) / wanted, self.counts)
            first = math.ceil(self.low / step - 1e-9)
            found = [step * at for at in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [value for value in found if self.low <= value * (1 + 1e-9) and value <= self.high]


def scale_of(values: Iterable[float], *, log: bool = False, from_zero: bool = False) -> Scale:
    """The scale that holds all values with a little room.

    Args:
        values: finite; where `log`, those above 0 count.
        log: see `Scale`.
        from_zero: whether it starts at 0.
    """
    held = [value for value in values if value > 0 or not log]
    low, high = (min(held), max(held)) if held else (1.0, 1.0)
    if log:
        room = (high / low) ** 0.06 if high > low else 2.0
        return Scale(low / room, high * room, log=True)
    room = 0.06 * (high - low) or abs(high) or 1.0
    return Scale(0.0 if from_zero else low - room, high + room)


@dataclass(frozen=True)
class Axes:
    """The frame of a drawing.

    Args:
        x: from left to right.
        y: from bottom to top.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.
        width: of the drawing in its own pixels.
        height: likewise.
        top: a second label of x, and its ticks: (value of x, text).
    """

    x: Scale
    y: Scale
    x_label: str
    y_label: str
    width: int = 460
    height: int = 290
    top: tuple[str, Sequence[tuple[float, str]]] | None = None

    @property
    def first_y(self) -> int:
        """Where the frame begins from above."""
        return TOP_PX if self.top else 14

    def px(self, value: float) -> float:
        """A value of x in pixels."""
        return round(LEFT_PX + self.x.share(value) * (self.width - LEFT_PX - RIGHT_PX), 1)

    def py(self, value: float) -> float:
        """A value of y in pixels."""
        span = self.height - BOTTOM_PX - self.first_y
        return round(self.height - BOTTOM_PX - self.y.share(value) * span, 1)

    def draw(self, title: str, body: str) -> str:
        """The drawing.

        Args:
            title: what it shows, for readers who do not see it.
            body: SVG within the frame, in pixels.
        """
        return svg(self.width, self.height, title, self._frame() + body)

    def _frame(self) -> str:
        left, right = LEFT_PX, self.width - RIGHT_PX
        low, high = self.height - BOTTOM_PX, self.first_y
        lines, texts = "", ""
        for value in self.x.ticks():
            at = self.px(value)
            lines += f'<path d="M{at} {low}V{high}"/>'
            texts += _text(at, low + 17, number(value))
        for value in self.y.ticks():
            at = self.py(value)
            lines += f'<path d="M{left} {at}H{right}"/>'
            texts += _text(left - 6, at + 4, number(value), "end")
        middle, centre = (left + right) / 2, (low + high) / 2
        texts += _text(middle, self.height - 8, self.x_label)
        texts += _text(0, 0, self.y_label, turned=f"translate(15 {centre}) rotate(-90)")
        if self.top:
            label, ticks = self.top
            texts += _text(middle, 13, label)
            texts += "".join(_text(self.px(value), 31, text) for value, text in ticks)
        return (
            f'<g class="grid">{lines}</g><g class="words">{texts}</g>'
            f'<path class="frame" d="M{left} {high}V{low}H{right}"/>'
        )


def svg(width: float, height: float, title: str, body: str) -> str:
    """A drawing that is as wide as its place, with a title for readers who do not see it."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{html.escape(title)}">{body}</svg>'
    )


def number(value: float) -> str:
    """A short spelling: 0.25, 1200, 10⁻⁵."""
    power = math.log10(abs(value)) if value else 0.0
    if value and not -3 <= power < 5:
        exponent = math.floor(power + 1e-9)
        digits = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        factor = f"{value / 10.0**exponent:.3g}"
        return f"10{digits}" if factor == "1" else f"{factor}·10{digits}"
    return f"{value:.4g}"


def _round_step(raw: float, counts: bool) -> float:
    power = 10.0 ** math.floor(math.log10(max(raw, 1.0) if counts else raw))
    digits = (1, 2, 5, 10) if counts else (1, 2, 2.5, 5, 10)
    return next(digit * power for digit in digits if digit * power >= raw * 0.8)


def _text(x: float, y: float, text: str, anchor: str = "middle", turned: str = "") -> str:
    place = f' transform="{turned}"' if turned else f' x="{x:g}" y="{y:g}"'
    return f'<text{place} text-anchor="{anchor}">{html.escape(text)}</text>'
