"""Plans for the eye: a picture in letters, and the difference of two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

from .action import COMPUTE, Action
from .plan import Plan, RegionInfo, Row

_LETTERS = {"compute": "#", "reuse": "r", "prune": "p", "bypass": "b"}
_INSIDE, _NOT_RUN = ".", " "
_LEGEND = "# compute  r reuse  p prune  b bypass  . inside one of these"
_OUTERMOST_FIRST = ("core", "level", "chain", "block")


def picture(plan: Plan, regions: Sequence[RegionInfo]) -> str:
    """The plan in letters: one column per step, one row per region.

    Neighbouring regions of a kind that are treated alike at every step share a row, "16 chains".

    Args:
        plan: one that passed its check.
        regions: of the plan's model.
    """
    parents = {region.name: region.parent for region in regions}
    ordered = sorted(regions, key=lambda region: _OUTERMOST_FIRST.index(region.kind))
    blocks: list[str] = []
    for stream, rows in plan.streams.items():
        lines: list[tuple[str, list[str], str]] = []  # kind, names, cells
        for region in ordered:
            cells = "".join(_letter(region.name, parents, row) for row in rows)
            if lines and lines[-1][0] == region.kind and lines[-1][2] == cells:
                lines[-1][1].append(region.name)
            else:
                lines.append((region.kind, [region.name], cells))
        labels = [names[0] if len(names) == 1 else f"{len(names)} {k}s" for k, names, _ in lines]
        width = max(map(len, (stream, *labels)))
        ruler = "".join(str(step % 10) for step in range(plan.steps))
        pictured = zip(labels, lines, strict=True)
        body = [f"{label:<{width}}  {cells}" for label, (_, _, cells) in pictured]
        blocks.append("\n".join([f"{stream:<{width}}  {ruler}", *body]))
    return "\n\n".join([*blocks, _LEGEND])


def diff(old: Plan, new: Plan) -> tuple[str, ...]:
    """What changed from one plan to another, one line per field or cell; empty where nothing."""
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


def _letter(name: str, parents: Mapping[str, str | None], row: Row) -> str:
    if row is None:
        return _NOT_RUN
    outer = parents[name]
    while outer is not None:
        if outer in row:
            return _INSIDE
        outer = parents[outer]
    return _LETTERS[row.get(name, COMPUTE).kind]


def _at(rows: Sequence[Row], step: int) -> Row:
    return rows[step] if step < len(rows) else None


def _changes(old: Row, new: Row) -> list[str]:
    if old is None or new is None:
        return [] if old == new else [f"{_runs(old)} -> {_runs(new)}"]
    cells: list[tuple[str, Action, Action]] = [
        (name, old.get(name, COMPUTE), new.get(name, COMPUTE)) for name in sorted({*old, *new})
    ]
    return [f"{name}: {before} -> {after}" for name, before, after in cells if before != after]


def _runs(row: Row) -> str:
    return "not run" if row is None else "run"
