"""Sites: every attention of the graph, with its kind told by what its sequence axis is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import fx
from turbo4d.compiler.axes import AxisMap, letters_of
from turbo4d.compiler.axis_rules import shape_of
from turbo4d.compiler.factors import Axis, Root, pieces
from turbo4d.compiler.geometry import Layout
from turbo4d.compiler.roles import Roles

if TYPE_CHECKING:
    from turbo4d.compiler.regions import Region

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default
Kind = Literal["spatial", "camera", "motion", "joint", "cross", "reference", "unclassified"]
_PLAIN: tuple[Kind, ...] = ("spatial", "camera", "motion")
SELF_KINDS = ("spatial", "camera", "motion", "joint")
_MEANING = {
    "H": "spatial", "W": "spatial", "S": "spatial", "V": "camera", "F": "motion",
    "context": "context", "h": "context", "w": "context",
}  # fmt: skip
_SCALING = (
    aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar, aten.add.Tensor,
    aten.sub.Tensor, aten._to_copy.default, aten.masked_fill.Scalar,
)  # fmt: skip
_PRODUCTS = (aten.matmul.default, aten.bmm.default)


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
        heads: N.
        groups: independent sequences: product of the batch axes before the heads.
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
class Attention:
    """The operands of one attention, however it is written.

    Args:
        node: that yields the attended values.
        query: [..., L, D].
        key: [..., K, D], or [..., D, K] where written out by hand.
        keys: K.
        key_axis: position of K in `key`.
    """

    node: fx.Node
    query: fx.Node
    key: fx.Node
    keys: int
    key_axis: int


def find_attentions(graph: fx.Graph) -> list[Attention]:
    """Every attention of a graph: the fused operator, and softmax(QK^T)V written out."""
    found: list[Attention] = []
    for node in graph.nodes:
        if node.target is SDPA:
            query, key = (_node(operand) for operand in node.args[:2])
            found.append(Attention(node, query, key, shape_of(key)[-2], -2))
        elif node.target is aten.softmax.int and (written := _written_out(node)):
            found.append(written)
    return found


def _node(value: Any) -> fx.Node:
    return value


def _written_out(softmax: fx.Node) -> Attention | None:
    scores = _node(softmax.args[0])
    while scores.target in _SCALING:
        scores = _node(scores.args[0])
    result = softmax
    while len(result.users) == 1 and result.target not in _PRODUCTS:
        [user] = result.users
        if user.target not in (*_SCALING, *_PRODUCTS):
            return None
        result = user
    if scores.target not in _PRODUCTS or result.target not in _PRODUCTS:
        return None
    if _node(result.args[0]) not in (softmax, *_trail(softmax, result)):
        return None
    query, key = (_node(operand) for operand in scores.args[:2])
    return Attention(result, query, key, shape_of(key)[-1], -1)


def _trail(start: fx.Node, end: fx.Node) -> list[fx.Node]:
    found: list[fx.Node] = []
    node = start
    while node is not end:
        [node] = node.users
        found.append(node)
    return found


def classify(attention: Attention, roles: Roles, axes: AxisMap, layout: Layout) -> tuple[Kind, str]:
    """The kind of an attention, and a note."""
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
    [kind] = (kind for kind in _PLAIN if kind in meanings)
    return kind, _partial(axis, axes.images, letters)


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
) -> tuple[Site, ...]:
    """Give every attention its region and its name.

    Args:
        attentions: in the order of the graph.
        kinds: kind and note of each.
        regions: whose `sites` hold node names.
    """
    seen: dict[str, int] = {}
    sites: list[Site] = []
    for attention, (kind, note) in zip(attentions, kinds, strict=True):
        around = [region for region in regions if attention.node.name in region.sites]
        region = min(around, key=lambda region: region.nodes, default=None)
        name = _site_name(region, kind)
        seen[name] = seen.get(name, 0) + 1
        shape = shape_of(attention.query)
        batch = shape[:-3] if len(shape) > 3 else shape[:-2]
        sites.append(
            Site(
                name=name if seen[name] == 1 else f"{name}.{seen[name] - 1}",
                node=attention.node.name,
                kind=kind,
                region=region.name if region else None,
                query_tokens=shape[-2],
                key_tokens=attention.keys,
                heads=shape[-3] if len(shape) > 3 else 1,
                groups=prod(batch),
                note=note,
            )
        )
    return tuple(sites)


def _site_name(region: Region | None, kind: Kind) -> str:
    if region is None:
        return kind
    if region.kind == "block":
        return region.name if kind in SELF_KINDS else f"{region.name}.{kind}"
    return f"{region.name.removesuffix('.chain')}.{kind}"
