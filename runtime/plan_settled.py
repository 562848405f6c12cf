"""A plan made legal where cells contradict each other: the outermost action stays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .action import Action
from .region_info import RegionInfo
from .stream_proof import refuse_unknown

if TYPE_CHECKING:
    from .plan import Plan, Row


def settled(plan: Plan, regions: Sequence[RegionInfo]) -> tuple[Plan, tuple[str, ...]]:
    """The plan without the cells inside others; see `Plan.settled`."""
    by_name = {region.name: region for region in regions}
    sentences: list[str] = []
    streams: dict[str, tuple[Row, ...]] = {}
    for stream, rows in plan.streams.items():
        kept: list[Row] = []
        for step, row in enumerate(rows):
            if row is None:
                kept.append(None)
                continue
            around: dict[str, str] = {}
            for name in row:
                refuse_unknown(name, by_name, f"stream {stream!r}, step {step}")
                if (outer := _holder(name, row, by_name)) is not None:
                    around[name] = outer
            kept.append({name: action for name, action in row.items() if name not in around})
            sentences += [
                f"stream {stream!r}, step {step}: {row[name]} of {name!r} is left out, since "
                f"{outer!r} around it is {row[outer]}."
                for name, outer in around.items()
            ]
        streams[stream] = tuple(kept)
    return dataclasses.replace(plan, streams=streams), tuple(sentences)


def _holder(name: str, row: Mapping[str, Action], regions: Mapping[str, RegionInfo]) -> str | None:
    """The outermost region around this one that the row does not compute."""
    found, outer = None, regions[name].parent
    while outer is not None:
        if outer in row:
            found = outer
        outer = regions[outer].parent
    return found
