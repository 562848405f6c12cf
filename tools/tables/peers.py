"""Suite `peers` as tables: each package beside turbo4d at its fidelity, and every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
_MIDDLE = "mid-"
_ALL = "tools/results/README.md#packages-of-others-beside-turbo4d"


@dataclass(frozen=True)
class _Pair:
    """A setting of a package that saves time, and turbo4d's fastest row of at least its PSNR."""

    group: str
    peer: Row
    best: Row | None

    @property
    def ahead(self) -> bool:
        """Whether turbo4d is at least as fast."""
        return self.best is not None and self.best["speedup"] >= self.peer["speedup"]


def block(report: Report | None) -> str:
    """For README.md: the networks of middle size, and how many rows of all go to turbo4d.

    Args:
        report: of suite `peers`; None where there is none.
    """
    if report is None:
        return NOT_MEASURED
    pairs, idle = _pairs(report)
    middle = [pair for pair in pairs if pair.group.startswith(_MIDDLE)]
    ahead = sum(pair.ahead for pair in pairs)
    networks = {pair.group for pair in pairs}
    return (
        f"{_table(middle)}\n\nOf {len(pairs)} rows on {len(networks)} networks turbo4d is at least "
        f"as fast at the same PSNR or better in {ahead}; here are those of middle size, on which "
        f"Python no longer counts, and [all]({_ALL}) are beside the other tables. {idle} further "
        f"settings of packages reused nothing or were no faster than eager. {_SAYS} "
        f"{machine_of(report)}"
    )


def beside_table(report: Report | None) -> str:
    """For tools/results/README.md: each setting of a package beside turbo4d's as faithful row.

    Args:
        report: of suite `peers`; None where there is none.
    """
    return NOT_MEASURED if report is None else _table(_pairs(report)[0])


def _pairs(report: Report) -> tuple[list[_Pair], int]:
    """The pairs, and how many settings of packages saved nothing."""
    pairs: list[_Pair] = []
    idle = 0
    for group, members in groupby(ran(report), lambda row: row["group"]):
        rows = list(members)
        ours = [row for row in rows if row["system"].startswith("turbo4d:")]
        peers = [row for row in rows if row["system"].startswith("peer:")]
        saving = [row for row in peers if row["speedup"] > 1.0 and not _idle(row)]
        idle += len(peers) - len(saving)
        for peer in sorted(saving, key=lambda row: -row["speedup"]):
            able = [row for row in ours if row["psnr_db"] >= peer["psnr_db"]]
            best = max(able, key=lambda row: row["speedup"], default=None)
            pairs.append(_Pair(group, peer, best))
    return pairs, idle


def _table(pairs: Sequence[_Pair]) -> str:
    head = ("network", "package", "over eager", "PSNR", "operations", "turbo4d, as faithful",
            "over eager", "PSNR", "operations")  # fmt: skip
    lines = [
        (
            f"`{pair.group}`",
            *_cells(pair.peer, bold=not pair.ahead),
            *_cells(pair.best, bold=pair.ahead),
        )
        for pair in pairs
    ]
    return table(head, lines)


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
