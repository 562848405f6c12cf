"""The rows of a report as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

Row = Mapping[str, Any]
HEAD = ("", "seconds", "faster", "PSNR", "SSIM", "compile", "resident", "note")


def told(report: Mapping[str, Any]) -> str:
    """A table for each group, the machine under them."""
    tables = [
        f"{group}\n{aligned([HEAD, *map(_cells, rows)])}"
        for group, rows in groupby(report["rows"], lambda row: row["group"])
    ]
    machine = report["machine"]
    tables.append(f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}")
    return "\n\n".join(tables)


def label_of(row: Row) -> str:
    """What tells a row from the others of its group."""
    return " ".join(word for word in (row["system"], row["lowering"], row["label"]) if word)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at in (0, len(widths) - 1) else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        f"  {label_of(row)}",
        spread(row),
        said(row["speedup"], "{:.2f}x"),
        decibels(row["psnr_db"] if row["psnr_mask_db"] is None else row["psnr_mask_db"]),
        said(row["ssim"], "{:.4f}"),
        said(row["compile_s"], "{:.1f} s"),
        megabytes(row["peak_bytes"]),
        row["error"] or row.get("note") or "",
    )


def said(value: float | None, form: str) -> str:
    """A figure; nothing for none."""
    return "" if value is None else form.format(value)


def spread(row: Row) -> str:
    """The median, and the fastest and slowest run."""
    if row["latency_s"] is None:
        return ""
    low, high = row["latency_spread"] or (row["latency_s"], row["latency_s"])
    form: Callable[[float], str] = "{:.3g}".format
    return f"{form(row['latency_s'])} s ({form(low)} to {form(high)})"


def decibels(value: float | None) -> str:
    """A PSNR; beyond 200 dB nothing differs."""
    if value is None:
        return ""
    return "every bit" if value >= 200 else f"{value:.1f} dB"


def megabytes(size: int | None) -> str:
    """Bytes in MB."""
    return "" if size is None else f"{size / 1e6:.0f} MB"
