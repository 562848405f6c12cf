"""pruning: which regions can be computed for some of their tokens, whose relevance each follows.

A region is prunable where its attentions over the sample are of one plain kind, its tokens lie in
one dimension of its entry, every call between entry and value keeps them apart (`token_rules`), and
a spatial attention is there to say which matter: its own, or of a region of camera or motion the
one before it in its chain, else the nearest before it, over as many tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from torch import fx
from turbo4d.compiler.attentions import SDPA, Attention
from turbo4d.compiler.axes import AxisMap
from turbo4d.compiler.factors import Axis as Factors
from turbo4d.compiler.factors import pieces
from turbo4d.compiler.sites import SELF_KINDS
from turbo4d.passes import PruneTokens, RecordRelevance
from turbo4d.passes.base import slot_name
from turbo4d.passes.tokens.choice import fit
from turbo4d.passes.tokens.layout import (
    TOKENS,
    Atom,
    Axis,
    Layout,
    TokensMixedError,
    joined,
    layout_text,
    length,
    tokens_of,
)
from turbo4d.passes.tokens.trace import trace
from turbo4d.runtime.region_info import relevance_slot

if TYPE_CHECKING:
    from turbo4d.compiler.ports import Port
    from turbo4d.compiler.regions import Region

KINDS = ("spatial", "camera", "motion")
_SPACE = frozenset("HWS")


@dataclass(frozen=True)
class Pruning:
    """How a region is computed for some of its tokens.

    Args:
        source: name of the region whose attention says which tokens matter.
        attention: node of that attention.
        batch: layout of its queries before tokens and channels (`passes.tokens.layout`).
        rows: of the relevance, as one dimension of a layout.
        images: how many rows.
        layout: of the region's entry.
        pooled: the images that its sequences run over, as one dimension of a layout.
        tokens: how many each image has.
        flops: operations that fall as fewer tokens are kept.
    """

    source: str
    attention: str
    batch: tuple[str, ...]
    rows: str
    images: int
    layout: tuple[str, ...]
    pooled: str
    tokens: int
    flops: int

    @property
    def relevance(self) -> str:
        """Name of the slot that says which tokens matter."""
        return relevance_slot(self.source)

    @property
    def relevance_bytes(self) -> int:
        """Of that slot, in float32."""
        return 4 * self.images * self.tokens

    def record(self) -> RecordRelevance:
        """What writes that slot."""
        return RecordRelevance(self.source, self.attention, self.batch)

    def prune(self, region: str, port: Port, slot: str, keep: float) -> PruneTokens:
        """What prunes the region.

        Args:
            region: its name.
            port: its only one.
            slot: name of the placeholder of its own slot.
            keep: the share of tokens that is computed.
        """
        return PruneTokens(
            region=region,
            entry=port.entry or "",
            value=port.value,
            slot=slot,
            difference=port.form == "difference",
            source=self.source,
            relevance=slot_name(self.relevance),
            kept=kept_count(keep, self.tokens),
            layout=self.layout,
            rows=self.rows,
            pooled=self.pooled,
        )


class HowPruned(TypedDict):
    """Two fields of a region."""

    pruning: Pruning | None
    unprunable: str


def kept_count(keep: float, tokens: int) -> int:
    """How many of some tokens a share keeps: at least the share, and at least one."""
    return max(1, math.ceil(round(keep * tokens, 6)))


def find_pruning(
    graph: fx.Graph,
    regions: Sequence[Region],
    attentions: Sequence[Attention],
    kinds: Mapping[str, str],
    axes: AxisMap,
    flops: Mapping[str, int],
) -> list[HowPruned]:
    """For each region how it is pruned, or in a few words why it cannot be.

    Args:
        graph: canonical.
        regions: of the graph; their `sites` hold node names.
        attentions: on the sample's path.
        kinds: of each attention, by node name.
        axes: of the graph.
        flops: by node name.
    """
    search = _Search(graph, regions, attentions, kinds, axes, flops)
    found: list[HowPruned] = []
    for region in regions:
        try:
            found.append({"pruning": search.pruning(region), "unprunable": ""})
        except TokensMixedError as error:
            found.append({"pruning": None, "unprunable": str(error)})
    return found


@dataclass(frozen=True)
class _Source:
    """A spatial attention that can say which tokens matter."""

    region: Region
    attention: Attention
    batch: Layout
    tokens: int

    @property
    def rows(self) -> Axis:
        return joined(atom for axis in self.batch for atom in axis if atom.root)


class _Search:
    def __init__(
        self,
        graph: fx.Graph,
        regions: Sequence[Region],
        attentions: Sequence[Attention],
        kinds: Mapping[str, str],
        axes: AxisMap,
        flops: Mapping[str, int],
    ) -> None:
        self.nodes: dict[str, fx.Node] = {node.name: node for node in graph.nodes}
        self.place = {name: at for at, name in enumerate(self.nodes)}
        self.attentions = {attention.node.name: attention for attention in attentions}
        self.kinds = kinds
        self.axes = axes
        self.flops = flops
        self.sources = list(self._find_sources(regions))

    def pruning(self, region: Region) -> Pruning:
        """How a region is pruned.

        Raises:
            TokensMixedError: with the reason why it is not.
        """
        own = [name for name in region.sites if self.kinds[name] in SELF_KINDS]
        kind = self._kind(own)
        [port] = region.ports if len(region.ports) == 1 else [None]
        if port is None or port.entry is None or port.form == "exit":
            raise TokensMixedError("its slot holds no residual of one value")
        entry, value = self.nodes[port.entry], self.nodes[port.value]
        layout = self._entry_layout(port.entry)
        found = trace(entry, value, layout)
        pooled: Axis = ()
        if kind != "spatial":
            along = {self._images(self._keys(self.attentions[name])) for name in own}
            if len(along) != 1:
                raise TokensMixedError("its attentions run over different axes")
            [pooled] = along
        source = self._source(region, kind, own, tokens_of(layout))
        fit(source.rows, pooled, [*found.layouts.values()])
        [rows, over] = layout_text((source.rows, pooled))
        return Pruning(
            source=source.region.name,
            attention=source.attention.node.name,
            batch=layout_text(source.batch),
            rows=rows,
            images=length(source.rows),
            layout=layout_text(layout),
            pooled=over,
            tokens=source.tokens,
            flops=sum(self.flops.get(node.name, 0) for node in found.kept - found.whole),
        )

    def _kind(self, own: Sequence[str]) -> str:
        kinds = {self.kinds[name] for name in own}
        if len(kinds) != 1 or not kinds <= set(KINDS):
            listed = ", ".join(sorted(kinds)) or "none"
            raise TokensMixedError(f"its attentions are {listed}; wanted one of {', '.join(KINDS)}")
        return kinds.pop()

    def _entry_layout(self, name: str) -> Layout:
        layout = tuple(self._axis(axis) for axis in self.axes.of[name])
        held = [atom for axis in layout for atom in axis if atom.root == TOKENS]
        if len(held) != 1:
            where = "no dimension" if not held else f"{len(held)} dimensions"
            raise TokensMixedError(f"the tokens lie in {where} of what comes in")
        return layout

    def _axis(self, axis: Factors) -> Axis:
        """Images, frames and tokens by their roots; pixels that lie together are tokens."""
        found: list[Atom] = []
        for factor in axis:
            letters = {atom.root.letter for atom in pieces((factor,))}
            last = found[-1] if found else None
            if factor.root is self.axes.images:
                found.append(Atom("I", factor.inner, factor.size))
            elif factor.root.letter == "F":
                found.append(Atom("F", factor.inner, factor.size))
            elif not letters <= _SPACE or not letters:
                found.append(Atom("", 1, factor.size))
            elif last is not None and last.root == TOKENS:
                found[-1] = Atom(TOKENS, 1, last.size * factor.size)
            else:
                found.append(Atom(TOKENS, 1, factor.size))
        return joined(found)

    def _images(self, axis: Axis) -> Axis:
        if any(atom.root not in ("I", "F") for atom in axis):
            raise TokensMixedError("its sequence runs over more than images")
        return axis

    def _keys(self, attention: Attention) -> Axis:
        return self._axis(self.axes.of[attention.key.name][attention.key_axis])

    def _source(self, region: Region, kind: str, own: Sequence[str], tokens: int) -> _Source:
        first = min(self.place[name] for name in own)
        known = [one for one in self.sources if one.tokens == tokens]
        mine = [one for one in known if one.attention.node.name in own]
        before = [one for one in known if self.place[one.attention.node.name] < first]
        chain = [one for one in before if one.region.parent == region.parent is not None]
        for choices in (mine,) if kind == "spatial" else (chain, before):
            if choices:
                return choices[-1]
        where = "is its own" if kind == "spatial" else "comes before it"
        raise TokensMixedError(f"no plain spatial attention over {tokens} tokens {where}")

    def _find_sources(self, regions: Sequence[Region]) -> Iterator[_Source]:
        for name, attention in self.attentions.items():
            around = [region for region in regions if name in region.sites]
            if self.kinds[name] == "spatial" and around and _plain(attention):
                smallest = min(around, key=lambda region: region.nodes)
                *batch, keys, _ = self.axes.of[attention.key.name]
                layout = tuple(map(self._axis, batch))
                [*_, token] = self._axis(keys) or (Atom("", 1, 1),)
                if token.root == TOKENS and token.size == attention.keys:
                    yield _Source(smallest, attention, layout, token.size)


def _plain(attention: Attention) -> bool:
    """Whether relevance can be read from it: fused, of the tokens over themselves, no mask."""
    if attention.node.target is not SDPA or attention.masked:
        return False
    query, key = (node.meta["val"].shape for node in (attention.query, attention.key))
    return query[:-1] == key[:-1]
