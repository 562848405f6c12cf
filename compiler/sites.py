"""Sites: every attention of the graph, with its kind told by what its sequence axis is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

from turbo4d.compiler.attentions import Attention
from turbo4d.compiler.axes import AxisMap, letters_of
from turbo4d.compiler.factors import Axis, Root, pieces
from turbo4d.compiler.geometry import Layout
from turbo4d.compiler.node_values import shape_of
from turbo4d.compiler.roles import Roles

if TYPE_CHECKING:
    from turbo4d.compiler.regions import Region

Kind = Literal["spatial", "camera", "motion", "joint", "cross", "reference", "unclassified"]
_PLAIN: tuple[Kind, ...] = ("spatial", "camera", "motion")
SELF_KINDS = ("spatial", "camera", "motion", "joint")
_MEANING = {
    "H": "spatial", "W": "spatial", "S": "spatial", "V": "camera", "F": "motion",
    "context": "context", "h": "context", "w": "context",
}  # fmt: skip
_UNTOLD = "its tokens may lie in frames: geometry={'frames': ..., 'height': ..., 'width': ...} says"


@dataclass(frozen=True)
class Site:
    """One attention.

    Args:
        name: `<chain>.<kind>`, or `<kind>.<i>` outside any region; unique.
        node: name of its node in the canonical graph.
        kind: which axis the keys run over; "cross" has keys from conditioning alone.
        region: name of the smallest region that holds it, or None.
        query_tokens: length of the query sequence.
        key_tokens: length of the key sequence.
        heads: N: what the batch axes hold of channels; where that cannot be told, the last of them.
        groups: independent sequences: product of the other batch axes.
        note: what a reader should know, "" for nothing; the reason where unclassified.
    """

    name: str
    node: str
    kind: Kind
    region: str | None
    query_tokens: int
    key_tokens: int
    heads: int
    groups: int
    note: str = ""


@dataclass(frozen=True)
class Aside:
    """An attention off the sample's path: no region is its, and the prologue may hold it.

    Args:
        node: name of its node in the canonical graph.
        over: what its keys run over, in letters.
    """

    node: str
    over: str


def name_aside(attention: Attention, axes: AxisMap, layout: Layout) -> Aside:
    """What can be said of an attention that does not depend on the sample."""
    along = axes.of[attention.key.name][attention.key_axis]
    return Aside(attention.node.name, letters_of(along, layout.intervals(axes.images)))


def classify(attention: Attention, roles: Roles, axes: AxisMap, layout: Layout) -> tuple[Kind, str]:
    """The kind of an attention, and a note."""
    kind, note = _kind(attention, roles, axes, layout)
    if attention.masked and kind != "unclassified":
        note = f"{note}, {attention.masked}" if note else attention.masked
    return kind, note


def _kind(attention: Attention, roles: Roles, axes: AxisMap, layout: Layout) -> tuple[Kind, str]:
    if attention.key.name not in roles.stream:
        along = axes.of[attention.key.name][attention.key_axis]
        letters = letters_of(along, layout.intervals(axes.images)).split()
        if attention.keys > 1 and {"h", "w"} & set(letters):
            return "reference", ""
        return "cross", ""
    if attention.query.name not in roles.stream:
        return "unclassified", "its queries do not depend on the sample"
    axis = axes.of[attention.key.name][attention.key_axis]
    return _self_kind(axis, axes, layout)


def _self_kind(axis: Axis, axes: AxisMap, layout: Layout) -> tuple[Kind, str]:
    letters = letters_of(axis, layout.intervals(axes.images)).split()
    if not letters:
        return "unclassified", "its sequence has one token"
    meanings = {_MEANING.get(letter, letter) for letter in letters}
    for letter in letters:
        if letter not in _MEANING:
            makers = {atom.root.why for atom in pieces(axis) if atom.root.letter == letter}
            made = f", made by {', '.join(sorted(makers))}" if any(makers) else ""
            return "unclassified", f"its sequence runs over {' '.join(letters)}{made}"
    if len(meanings) > 1:
        return "joint", f"over {' '.join(letters)}"
    if meanings == {"context"}:
        return "unclassified", "its keys are conditioning that was mixed with the sample"
    kind: Kind = next(kind for kind in _PLAIN if kind in meanings)
    return kind, _UNTOLD if "S" in letters else _partial(axis, axes.images, letters)


def _partial(axis: Axis, images: Root, letters: list[str]) -> str:
    """What to say of a sequence that covers its axes only in part."""
    cut = [atom for atom in axis if atom.root is not images and atom.size < atom.root.size]
    if not cut:
        return ""
    size = prod(atom.size for atom in axis)
    if any(atom.root.product for atom in cut):
        return f"groups of {size} entries that run over {' '.join(letters)}"
    return f"groups of {size} consecutive entries along {' '.join(letters)}"


def name_sites(
    attentions: Sequence[Attention],
    kinds: Sequence[tuple[Kind, str]],
    regions: Sequence[Region],
    axes: AxisMap,
) -> tuple[Site, ...]:
    """Give every attention its region and its name.

    Args:
        attentions: in the order of the graph.
        kinds: kind and note of each.
        regions: whose `sites` hold node names.
        axes: of the graph.
    """
    seen: dict[str, int] = {}
    sites: list[Site] = []
    for attention, (kind, note) in zip(attentions, kinds, strict=True):
        around = [region for region in regions if attention.node.name in region.sites]
        region = min(around, key=lambda region: region.nodes, default=None)
        name = _site_name(region, kind)
        seen[name] = seen.get(name, 0) + 1
        heads, groups = _heads(attention, axes)
        sites.append(
            Site(
                name=name if seen[name] == 1 else f"{name}.{seen[name] - 1}",
                node=attention.node.name,
                kind=kind,
                region=region.name if region else None,
                query_tokens=shape_of(attention.query)[attention.query_axis],
                key_tokens=attention.keys,
                heads=heads,
                groups=groups,
                note=note,
            )
        )
    return tuple(sites)


def _heads(attention: Attention, axes: AxisMap) -> tuple[int, int]:
    """How many heads and how many groups the batch axes of an attention hold."""
    shape, batch = shape_of(attention.query), attention.batch
    total = prod(shape[at] for at in batch)
    made = [atom for at in batch for atom in axes.of[attention.query.name][at]]
    heads = prod(atom.size for atom in made if {p.root.letter for p in pieces((atom,))} == {"C"})
    if heads == 1 and len(batch) > 1:
        heads = shape[batch[-1]]
    return heads, total // heads


def _site_name(region: Region | None, kind: Kind) -> str:
    if region is None:
        return kind
    if region.kind == "block":
        return region.name if kind in SELF_KINDS else f"{region.name}.{kind}"
    return f"{region.name.removesuffix('.chain')}.{kind}"
