"""Tables in Markdown, and what stands in and under them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The head and the rows, a line each."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def decibels(value: float) -> str:
    """A PSNR; beyond 200 dB nothing differs."""
    return "equal in every bit" if value >= 200 else f"{value:.1f} dB"


def share(value: float | None) -> str:
    """A share in percent; nothing for none."""
    return "" if value is None else f"{value:.1%}"


def machine(report: Mapping[str, Any], commits: str | None = None) -> str:
    """What a report was measured on, at its own commit or at those given."""
    return (
        f"{report['device']}, {report['threads']} threads, torch {report['torch']}, commit "
        f"`{commits or report['commit'][:12]}`."
    )
