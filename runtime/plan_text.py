"""Plans for the eye: their lines, a picture in letters, and the difference of two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from .action import COMPUTE, Action
from .plan import Plan, RegionInfo, RegionKind, Row

# What happens to a region at a step; "inside": a region around it is reused or bypassed.
Cell = Literal["compute", "reuse", "prune", "bypass", "inside", "idle"]

LETTERS: Mapping[Cell, str] = {
    "compute": "#",
    "reuse": "r",
    "prune": "p",
    "bypass": "b",
    "inside": ".",
    "idle": " ",
}
_LEGEND = "# compute  r reuse  p prune  b bypass  . inside one of these"
_LISTED = 3  # names in one line of a difference
_OUTERMOST_FIRST = ("step", "core", "level", "chain", "block")


@dataclass(frozen=True)
class Line:
    """One line of a plan's picture: the regions of a kind that are treated alike at every step.

    Args:
        stream: whose steps they are.
        kind: of the regions.
        names: of the regions, in the order of the graph.
        cells: what happens at each step.
    """

    stream: str
    kind: RegionKind
    names: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def label(self) -> str:
        """The region's name, or how many there are: "16 chains"."""
        return self.names[0] if len(self.names) == 1 else f"{len(self.names)} {self.kind}s"


def plan_lines(plan: Plan, regions: Sequence[RegionInfo]) -> tuple[Line, ...]:
    """The picture's lines, stream by stream, the largest kind of region first.

    Args:
        plan: one that passed its check.
        regions: of the plan's model.
    """
    parents = {region.name: region.parent for region in regions}
    named = {name for rows in plan.streams.values() for row in rows for name in row or {}}
    # The whole step, where no step reuses it, would be a line that says nothing.
    shown = [region for region in regions if region.kind != "step" or region.name in named]
    ordered = sorted(shown, key=lambda region: _OUTERMOST_FIRST.index(region.kind))
    lines: list[Line] = []
    for stream, rows in plan.streams.items():
        alike: dict[tuple[RegionKind, tuple[Cell, ...]], list[str]] = {}
        for region in ordered:
            cells: tuple[Cell, ...] = tuple(_cell(region.name, parents, row) for row in rows)
            alike.setdefault((region.kind, cells), []).append(region.name)
        lines += [Line(stream, kind, tuple(of), cells) for (kind, cells), of in alike.items()]
    return tuple(lines)


def picture(plan: Plan, regions: Sequence[RegionInfo]) -> str:
    """The plan in letters: one column per step, one row per line of `plan_lines`.

    Args:
        plan: one that passed its check.
        regions: of the plan's model.
    """
    lines = plan_lines(plan, regions)
    blocks: list[str] = []
    for stream in plan.streams:
        shown = [line for line in lines if line.stream == stream]
        width = max(map(len, (stream, *(line.label for line in shown))))
        ruler = "".join(str(step % 10) for step in range(plan.steps))
        body = [
            f"{line.label:<{width}}  {''.join(LETTERS[cell] for cell in line.cells)}"
            for line in shown
        ]
        blocks.append("\n".join([f"{stream:<{width}}  {ruler}", *body]))
    return "\n\n".join([*blocks, _LEGEND])


def diff(old: Plan, new: Plan) -> tuple[str, ...]:
    """What changed from one plan to another; empty where nothing.

    One line per field, and one per step and change: regions that change alike share it.
    """
    lines = [
        f"{field.name}: {getattr(old, field.name)} -> {getattr(new, field.name)}"
        for field in fields(Plan)
        if field.name != "streams" and getattr(old, field.name) != getattr(new, field.name)
    ]
    for stream in sorted({*old.streams, *new.streams}):
        if stream not in new.streams or stream not in old.streams:
            lines.append(f"stream {stream}: {'added' if stream in new.streams else 'removed'}")
            continue
        rows, others = old.streams[stream], new.streams[stream]
        for step in range(max(len(rows), len(others))):
            lines += [
                f"stream {stream} step {step} {change}"
                for change in _changes(_at(rows, step), _at(others, step))
            ]
    return tuple(lines)


def _cell(name: str, parents: Mapping[str, str | None], row: Row) -> Cell:
    if row is None:
        return "idle"
    outer = parents[name]
    while outer is not None:
        if outer in row:
            return "inside"
        outer = parents[outer]
    return row.get(name, COMPUTE).kind


def _at(rows: Sequence[Row], step: int) -> Row:
    return rows[step] if step < len(rows) else None


def _changes(old: Row, new: Row) -> list[str]:
    if old is None or new is None:
        return [] if old == new else [f"{_runs(old)} -> {_runs(new)}"]
    alike: dict[tuple[Action, Action], list[str]] = {}
    for name in sorted({*old, *new}):
        before, after = old.get(name, COMPUTE), new.get(name, COMPUTE)
        if before != after:
            alike.setdefault((before, after), []).append(name)
    return [f"{_listed(names)}: {before} -> {after}" for (before, after), names in alike.items()]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{len(names)} regions ({shown}, ...)"


def _runs(row: Row) -> str:
    return "not run" if row is None else "run"
