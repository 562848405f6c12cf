"""Regions: the nested segments of the main stream that a plan may reuse or bypass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import fx
from turbo4d.compiler.blocks import find_blocks
from turbo4d.compiler.chains import find_chains
from turbo4d.compiler.flow import Flow, Segment, only_for, total
from turbo4d.compiler.joint_chains import Joint, find_joint_chains
from turbo4d.compiler.ports import Port as Port
from turbo4d.compiler.ports import port_of
from turbo4d.compiler.unet_levels import find_core, find_levels, is_skip
from turbo4d.runtime.plan import RegionInfo

if TYPE_CHECKING:
    from turbo4d.compiler.pruning import Pruning

Kind = Literal["block", "chain", "level", "core", "step"]
_RANKS: tuple[Kind, ...] = ("block", "chain", "level", "core", "step")


@dataclass(frozen=True)
class Region:
    """A segment of the stream between two cuts.

    Args:
        name: by structure: `down.<level>.<i>.chain`, `middle.chain`, `up.<level>.<i>.chain`,
            `stack.<i>.chain` where the resolution never changes, `core`; a block adds its kind.
        kind: block < chain < level < core < step.
        parent: name of the smallest region that holds this one: where the parent is reused,
            nothing reads what this one makes. A level that no skip goes around holds all that
            comes before it, too.
        ports: one per value that leaves it, the sample's own stream first.
        entries: names of all values that come in, those that end here too.
        sites: names of the sites within.
        nodes: how many nodes of the stream the region executes.
        flops: of everything that only this region needs.
        pruning: how it is computed for some of its tokens, None where it cannot be.
        unprunable: why it cannot be.
    """

    name: str
    kind: Kind
    parent: str | None
    ports: tuple[Port, ...]
    entries: tuple[str, ...]
    sites: tuple[str, ...]
    nodes: int
    flops: int
    pruning: Pruning | None = None
    unprunable: str = ""

    @property
    def entry(self) -> str:
        """The value through which the sample's stream comes in."""
        entry = self.ports[0].entry
        return self.ports[0].exit if entry is None else entry

    @property
    def exit(self) -> str:
        """The value through which it goes on."""
        return self.ports[0].exit

    @property
    def value(self) -> str:
        """The node whose place its first slot takes: the residual of a sum, else the exit."""
        return self.ports[0].value

    @property
    def residual(self) -> bool:
        """Whether its slots hold what it adds to its entries, so that it can be left out."""
        return all(port.form != "exit" for port in self.ports)

    @property
    def slot_shape(self) -> tuple[int, ...]:
        """Of its first slot."""
        return self.ports[0].shape

    @property
    def slot_dtype(self) -> torch.dtype:
        """Of its first slot."""
        return self.ports[0].dtype

    @property
    def slot_bytes(self) -> int:
        """Of all its slots."""
        return sum(port.size_bytes for port in self.ports)

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
            relevance=self.pruning.source if self.pruning else None,
            relevance_bytes=self.pruning.relevance_bytes if self.pruning else 0,
            prunable_flops=self.pruning.flops if self.pruning else 0,
            unprunable=self.unprunable,
            slot_forms=tuple((port.shape, port.dtype) for port in self.ports),
        )


@dataclass(frozen=True)
class Found:
    """A region before it has a parent and a price.

    Args:
        name: as in `Region`.
        kind: likewise.
        ports: likewise.
        entries: names of the values that come in.
        members: positions of its nodes in the flow.
    """

    name: str
    kind: Kind
    ports: tuple[Port, ...]
    entries: tuple[str, ...]
    members: tuple[int, ...]


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
    found = [_whole(flow, "core", "core", core)] if core else []
    found += [_whole(flow, f"level.{n}", "level", level) for n, level in enumerate(levels, 1)]
    chains = _chains(flow, kinds, levels, core)
    for prefix, chain in zip(_names(flow, chains, levels), chains, strict=True):
        if isinstance(chain, Joint):
            one = Found(f"{prefix}.chain", "chain", chain.ports, chain.entries, chain.members)
            found.append(one)
        else:
            found.append(_found(flow, f"{prefix}.chain", "chain", chain))
            found += _blocks(flow, prefix, chain, kinds)
    return _priced(flow, found, attentions, flops)


def _chains(
    flow: Flow, kinds: dict[int, str], levels: list[Segment], core: Segment | None
) -> list[Segment | Joint]:
    inner, end = (core.entry, core.exit) if core else (0, len(flow.nodes) - 1)
    chains = find_chains(flow, kinds, levels, inner)
    held = {at for chain in chains for at in flow.between(chain.entry, chain.exit)}
    joint = find_joint_chains(flow, kinds, [at for at in kinds if at not in held], inner, end)
    apart = [one for one in joint if held.isdisjoint(one.members)]
    return sorted([*chains, *apart], key=lambda chain: chain.entry)


def _blocks(flow: Flow, prefix: str, chain: Segment, kinds: dict[int, str]) -> Iterable[Found]:
    seen: dict[str, int] = {}
    for kind, segment in find_blocks(flow, chain, kinds):
        if (segment.entry, segment.exit) == (chain.entry, chain.exit):
            continue
        seen[kind] = seen.get(kind, 0) + 1
        suffix = f".{seen[kind] - 1}" if seen[kind] > 1 else ""
        yield _found(flow, f"{prefix}.{kind}{suffix}", "block", segment)


def _whole(flow: Flow, name: str, kind: Kind, segment: Segment) -> Found:
    return _found(flow, name, kind, segment, whole=True)


def _found(flow: Flow, name: str, kind: Kind, segment: Segment, *, whole: bool = False) -> Found:
    entry, exit, value = (flow.nodes[at] for at in (segment.entry, segment.exit, segment.value))
    port = port_of(entry, exit, value, whole=whole)
    members = flow.between(segment.entry, segment.exit)
    return Found(name, kind, (port,), (entry.name,), tuple(members))


def _names(flow: Flow, chains: Sequence[Segment | Joint], levels: list[Segment]) -> list[str]:
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


def _priced(
    flow: Flow, found: list[Found], attentions: Mapping[int, str], flops: dict[str, int]
) -> tuple[Region, ...]:
    nodes: dict[str, fx.Node] = {node.name: node for node in flow.nodes[0].graph.nodes}
    # What nothing reads where the region is reused: a slot with the exit needs no entry.
    unread: list[set[fx.Node]] = []
    regions: list[Region] = []
    for one in found:
        values = [nodes[port.value] for port in one.ports]
        needed = only_for(values, [nodes[name] for name in one.entries])
        kept = [nodes[p.entry] for p in one.ports if p.entry is not None and p.form != "exit"]
        unread.append(set(only_for(values, kept)))
        regions.append(
            Region(
                name=one.name,
                kind=one.kind,
                parent=None,
                ports=one.ports,
                entries=one.entries,
                sites=tuple(attentions[at] for at in one.members if at in attentions),
                nodes=sum(node.name in flow.index for node in needed),
                flops=total(needed, flops),
            )
        )
    return tuple(
        replace(region, parent=_parent(region, regions, unread, nodes)) for region in regions
    )


def _parent(
    mine: Region, regions: list[Region], unread: list[set[fx.Node]], nodes: Mapping[str, fx.Node]
) -> str | None:
    """The region with the least inside it of those that leave nothing of `mine` to be read."""
    sizes = [(len(dead), _RANKS.index(r.kind)) for r, dead in zip(regions, unread, strict=True)]
    values = {nodes[port.value] for port in mine.ports}
    own = sizes[regions.index(mine)]
    around = [
        (size, other.name)
        for other, dead, size in zip(regions, unread, sizes, strict=True)
        if other is not mine and values <= dead and size > own
    ]
    return min(around)[1] if around else None
