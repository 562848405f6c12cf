"""The foreign models as a table: what was found, proven and saved."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

_HEAD = (
    "model", "sites", "not classified", "regions", "plan `none`", "plan `exact`", "engine calls",
    "operations", "speed-up", "error of the latent",
)  # fmt: skip


def block(report: Mapping[str, Any]) -> str:
    """The table as Markdown, with what it was measured on.

    Args:
        report: of `measure/foreign.py`.
    """
    lines = [_HEAD, ["---"] * len(_HEAD), *map(_row, report["rows"])]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return (
        f"{table}\n\n{len(report['rows'])} classes of `diffusers` {report['diffusers']}, each "
        f"compiled with nothing but its geometry, in a tiny configuration with {report['weights']} "
        f"weights, {report['dtype']}: the sites are those on the sample's path. Plans `none` and "
        f"`exact` are set against the plain module over {report['steps']} Euler steps; engine "
        f"calls, operations and speed-up are those of preset `{report['preset']}` over the same "
        "steps against as "
        f"many uncached ones, medians of {report['runs']} runs in turn, lowering "
        f"`{report['lowering']}` on both sides, compile time excluded. Random weights say nothing "
        "of quality, so the error is there to show that something was approximated, no more; and "
        "in networks this small Python takes much of a step, so the speed-up is less than the "
        f"operations saved. {report['device']}, {report['threads']} threads, torch "
        f"{report['torch']}, commit `{(report['commit'] or 'unknown')[:12]}`. GPU: not measured."
    )


def _row(row: Mapping[str, Any]) -> list[str]:
    return [
        f"`{row['model']}`",
        _counted(row["sites"]),
        "; ".join(f"`{one['name']}`: {one['reason']}" for one in row["unclassified"]) or "none",
        _counted(row["regions"]),
        _identity(row["identity_error"]),
        _identity(row["exact_error"]),
        _calls(row["calls_by_variant"]),
        f"{row['flops_share']:.0%}",
        f"**{row['speedup']:.2f}x**",
        f"{row['latent_error']:.1e}",
    ]


def _identity(error: float) -> str:
    return "equal in every bit" if error == 0 else f"off by {error:.0e}"


def _calls(by_variant: Mapping[str, int]) -> str:
    """Calls by what a variant reads; what it writes beside that, and its hash, are left out."""
    counts: Counter[str] = Counter()
    for name, calls in by_variant.items():
        counts[re.sub(r"\.[0-9a-f]{4}$", "", name.partition("+")[0])] += calls
    return ", ".join(f"{calls} `{name}`" for name, calls in counts.most_common())


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "none"
