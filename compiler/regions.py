"""Regions: the nested segments of the main stream that a plan may reuse or bypass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from turbo4d.compiler.blocks import find_blocks
from turbo4d.compiler.chains import Segment, find_chains
from turbo4d.compiler.flow import Flow, only_for, total
from turbo4d.compiler.unet_levels import find_core, find_levels, is_skip
from turbo4d.runtime.plan import RegionInfo

Kind = Literal["block", "chain", "level", "core"]


@dataclass(frozen=True)
class Region:
    """A single-entry, single-exit segment of the stream, in the canonical graph's node names.

    Args:
        name: by structure: `down.<level>.<i>.chain`, `middle.chain`, `up.<level>.<i>.chain`,
            `stack.<i>.chain` where the resolution never changes, `core`; a block adds its kind.
        kind: block < chain < level < core.
        parent: name of the smallest region that holds this one.
        entry: the value through which the stream comes in.
        exit: the value through which it goes on.
        value: what a slot caches: the residual, where `exit = entry + value`, else the exit.
        residual: whether `exit` is `add(entry, value)`, in either order of operands.
        sites: names of the sites within.
        nodes: how many nodes of the stream the region executes.
        slot_shape: of `value`.
        slot_dtype: of `value`.
        slot_bytes: of `value`.
        flops: of everything that only this region needs.
    """

    name: str
    kind: Kind
    parent: str | None
    entry: str
    exit: str
    value: str
    residual: bool
    sites: tuple[str, ...]
    nodes: int
    slot_shape: tuple[int, ...]
    slot_dtype: torch.dtype
    slot_bytes: int
    flops: int

    @property
    def info(self) -> RegionInfo:
        """What a plan needs to know of the region."""
        return RegionInfo(
            name=self.name,
            kind=self.kind,
            parent=self.parent,
            residual=self.residual,
            slot_bytes=self.slot_bytes,
            flops=self.flops,
        )


@dataclass(frozen=True)
class Found:
    """A region before it has a parent and a price.

    Args:
        name: as in `Region`.
        kind: likewise.
        segment: where it lies.
    """

    name: str
    kind: Kind
    segment: Segment


def find_regions(
    flow: Flow,
    kinds: dict[int, str],
    attentions: Mapping[int, str],
    flops: dict[str, int],
) -> tuple[Region, ...]:
    """The regions of a network, outermost first, then in the order of the graph.

    Args:
        flow: of the graph.
        kinds: by position, the kind of each attention over the sample itself.
        attentions: by position, the node name of every attention.
        flops: by node name.
    """
    core = find_core(flow)
    levels = find_levels(flow, core)
    chains = find_chains(flow, kinds)
    found = [Found("core", "core", core)] if core else []
    found += [Found(f"level.{n}", "level", level) for n, level in enumerate(levels, 1)]
    for prefix, chain in zip(_names(flow, chains, levels), chains, strict=True):
        found.append(Found(f"{prefix}.chain", "chain", chain))
        found += _blocks(flow, prefix, chain, kinds)
    members = {one.name: flow.between(one.segment.entry, one.segment.exit) for one in found}
    return tuple(_region(flow, one, found, members, attentions, flops) for one in found)


def _blocks(flow: Flow, prefix: str, chain: Segment, kinds: dict[int, str]) -> Iterable[Found]:
    seen: dict[str, int] = {}
    for kind, segment in find_blocks(flow, chain, kinds):
        if segment == chain:
            continue
        seen[kind] = seen.get(kind, 0) + 1
        suffix = f".{seen[kind] - 1}" if seen[kind] > 1 else ""
        yield Found(f"{prefix}.{kind}{suffix}", "block", segment)


def _names(flow: Flow, chains: list[Segment], levels: list[Segment]) -> list[str]:
    """`down.<level>.<i>`, `middle`, `up.<level>.<i>`; or `stack.<i>` at one resolution."""
    if not levels:
        return [f"stack.{index}" for index in range(len(chains))]
    inside = [range(chain.entry + 1, chain.exit + 1) for chain in chains]
    skips = [
        at
        for at, node in enumerate(flow.nodes)
        if is_skip(flow, node) and not any(at in chain for chain in inside)
    ]
    first = min(skips, default=len(flow.nodes))
    last_source = max(
        (source for at in skips for source in sorted(flow.before(flow.nodes[at]))[:1]), default=0
    )
    count: dict[str, int] = {}
    names: list[str] = []
    for chain in chains:
        depth = sum(level.entry < chain.exit <= level.exit for level in levels)
        side = "up" if chain.entry > first else "down" if chain.exit <= last_source else "middle"
        prefix = side if side == "middle" else f"{side}.{depth}"
        names.append(f"{prefix}.{count.get(prefix, 0)}")
        count[prefix] = count.get(prefix, 0) + 1
    alone = count.get("middle") == 1
    return ["middle" if alone and name == "middle.0" else name for name in names]


def _region(
    flow: Flow,
    one: Found,
    found: list[Found],
    members: Mapping[str, list[int]],
    attentions: Mapping[int, str],
    flops: dict[str, int],
) -> Region:
    segment = one.segment
    value = flow.nodes[segment.value]
    needed = only_for(value, flow.nodes[segment.entry])
    held = value.meta["val"]
    shape = tuple(int(side) for side in held.shape)
    return Region(
        name=one.name,
        kind=one.kind,
        parent=_parent(one, found),
        entry=flow.nodes[segment.entry].name,
        exit=flow.nodes[segment.exit].name,
        value=value.name,
        residual=segment.residual,
        sites=tuple(attentions[at] for at in members[one.name] if at in attentions),
        nodes=sum(node.name in flow.index for node in needed),
        slot_shape=shape,
        slot_dtype=held.dtype,
        slot_bytes=int(held.numel()) * held.dtype.itemsize,
        flops=total(needed, flops),
    )


def _parent(one: Found, found: list[Found]) -> str | None:
    mine = one.segment
    around = [
        other
        for other in found
        if other is not one
        and other.segment.entry <= mine.entry
        and mine.exit <= other.segment.exit
        and (other.segment.entry, other.segment.exit) != (mine.entry, mine.exit)
    ]
    smallest = min(around, key=lambda o: o.segment.exit - o.segment.entry, default=None)
    return smallest.name if smallest else None
