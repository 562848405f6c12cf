"""Suite `peers` as tables: each package beside turbo4d at its fidelity, and every row."""

from __future__ import annotations

from itertools import groupby

from turbo4d.tools.bench.table import megabytes, said
from turbo4d.tools.markdown import table
from turbo4d.tools.tables.bench import (
    NOT_MEASURED,
    Report,
    Row,
    decibels_or_none,
    group_tables,
    machine_of,
    name_of,
    ran,
)

_SAYS = (
    "Random weights, so PSNR says how far a latent lies from the uncached one of the same seed and "
    "nothing of quality; its peak is the largest less the smallest value of the uncached latent."
)


def block(report: Report | None) -> str:
    """For README.md: each setting of a package that saves time, and turbo4d's fastest beside it.

    Beside it stands the fastest row of turbo4d, on the same network, whose PSNR is no lower.

    Args:
        report: of suite `peers`; None where there is none.
    """
    if report is None:
        return NOT_MEASURED
    lines: list[tuple[str, ...]] = []
    idle, ahead = 0, 0
    for group, members in groupby(ran(report), lambda row: row["group"]):
        rows = list(members)
        ours = [row for row in rows if row["system"].startswith("turbo4d:")]
        peers = [row for row in rows if row["system"].startswith("peer:")]
        saving = [row for row in peers if row["speedup"] > 1.0 and not _idle(row)]
        idle += len(peers) - len(saving)
        for peer in sorted(saving, key=lambda row: -row["speedup"]):
            able = [row for row in ours if row["psnr_db"] >= peer["psnr_db"]]
            best = max(able, key=lambda row: row["speedup"], default=None)
            wins = best is not None and best["speedup"] >= peer["speedup"]
            ahead += wins
            lines.append((f"`{group}`", *_cells(peer, bold=not wins), *_cells(best, bold=wins)))
    head = ("network", "package", "over eager", "PSNR", "operations", "turbo4d, as faithful",
            "over eager", "PSNR", "operations")  # fmt: skip
    return (
        f"{table(head, lines)}\n\nIn {ahead} of {len(lines)} rows turbo4d is at least as fast at "
        f"the same PSNR or better; {idle} further settings of packages reused nothing or were no "
        f"faster than eager. {_SAYS} {machine_of(report)}"
    )


def full_table(report: Report | None) -> str:
    """For tools/results/README.md: every row, network by network.

    Args:
        report: of suite `peers`; None where there is none.
    """
    if report is None:
        return NOT_MEASURED
    head = ("", "seconds a sample", "over eager", "PSNR of the latent", "operations",
            "peak resident", "graph breaks", "recompilations", "note")  # fmt: skip
    return f"{group_tables(report, head, _full_cells)}\n\n{_SAYS} {machine_of(report)}"


def _idle(row: Row) -> bool:
    """Whether a package was asked to reuse and did not: what it gains then is the clock's."""
    return row.get("operations_share") is not None and row["operations_share"] >= 0.9995


def _cells(row: Row | None, *, bold: bool) -> tuple[str, ...]:
    if row is None:
        return ("none", "", "", "")
    name = name_of(row).replace("`peer:", "`").replace("`turbo4d:", "`")
    speed = f"{row['speedup']:.2f}x"
    return (
        name,
        f"**{speed}**" if bold else speed,
        decibels_or_none(row["psnr_db"]),
        said(row.get("operations_share"), "{:.0%}"),
    )


def _full_cells(row: Row) -> tuple[str, ...]:
    return (
        name_of(row),
        said(row["latency_s"], "{:.3g} s"),
        said(row["speedup"], "**{:.2f}x**"),
        decibels_or_none(row["psnr_db"]),
        said(row.get("operations_share"), "{:.0%}"),
        megabytes(row["peak_bytes"]),
        said(row.get("graph_breaks"), "{}"),
        said(row.get("recompiles"), "{}"),
        row["error"] or row.get("note") or "",
    )
