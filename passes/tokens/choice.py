"""choice: the kept tokens of each image or group, as nodes; taking them, and putting them back.

Tokens are chosen by falling relevance, of equal ones the first; they then keep their order. All
images of one group's sequence keep the same tokens, so that the whole group is computed.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod

import torch
from torch import fx
from turbo4d.passes.base import aten, emit

from .alignment import shape_of
from .layout import TOKENS, Atom, Axis, Layout, TokensMixedError, kept_shape, layout_text


@dataclass(frozen=True)
class Choice:
    """Which tokens are kept.

    Args:
        index: [groups..., K], rising in each row.
        groups: the atoms of its leading dimensions.
        count: K.
        cuts: by root, where every atom is cut.
        addresses: the numbers of kept rows, by what a value's rows are; each is emitted once.
    """

    index: fx.Node
    groups: Axis
    count: int
    cuts: dict[str, frozenset[int]]
    addresses: dict[object, fx.Node] = field(default_factory=dict[object, fx.Node])


def choose(
    graph: fx.Graph,
    relevance: fx.Node,
    rows: Axis,
    pooled: Axis,
    count: int,
    layouts: Collection[Layout],
) -> Choice:
    """Emit the choice, at the graph's insertion point.

    Args:
        graph: any.
        relevance: [rows, N].
        rows: what its rows are.
        pooled: the atoms over which its mean is taken.
        count: how many tokens are kept.
        layouts: of all values that they will be taken from.

    Raises:
        TokensMixedError: where rows, pooled atoms and layouts do not fit each other.
    """
    fit(rows, pooled, layouts)
    cuts = _cuts([rows, pooled, *(axis for layout in layouts for axis in layout)])
    atoms, mean_over = cut(rows, cuts), set(cut(pooled, cuts))
    sides = [atom.size for atom in atoms]
    value = _shaped(graph, relevance, [*sides, shape_of(relevance)[-1]])
    if mean_over:
        over = [at for at, atom in enumerate(atoms) if atom in mean_over]
        value = emit(graph, aten.mean.dim, value, over)
    falling = emit(graph, aten.sort.stable, value, stable=True, dim=-1, descending=True)
    order = emit(graph, operator.getitem, falling, 1)
    first = emit(graph, aten.slice.Tensor, order, len(atoms) - len(mean_over), 0, count)
    rising = emit(graph, aten.sort.default, first)
    groups = tuple(atom for atom in atoms if atom not in mean_over)
    return Choice(emit(graph, operator.getitem, rising, 0), groups, count, cuts)


def fit(rows: Axis, pooled: Axis, layouts: Collection[Layout]) -> None:
    """Refuse what `choose` and `take` could not follow.

    Args:
        rows: what the relevance's rows are.
        pooled: the atoms over which its mean is taken.
        layouts: of all values that tokens are taken from, the entry's first.

    Raises:
        TokensMixedError: where they do not fit each other.
    """
    cuts = _cuts([rows, pooled, *(axis for layout in layouts for axis in layout)])
    atoms, over = cut(rows, cuts), set(cut(pooled, cuts))
    if not over <= set(atoms):
        raise TokensMixedError(
            "its sequence runs over images that the relevance does not tell apart"
        )
    entry = {atom for axis in next(iter(layouts)) for atom in cut(axis, cuts)}
    if missing := set(atoms) - over - entry:
        raise TokensMixedError(f"what comes in does not tell images {_listed(missing)} apart")


def take(graph: fx.Graph, value: fx.Node, layout: Layout, choice: Choice) -> fx.Node:
    """Emit the kept tokens of a value.

    Args:
        graph: at the insertion point.
        value: may lack leading dimensions of the layout, or have length 1 in them.
        layout: that it is aligned with from the right.
        choice: which tokens.
    """
    rows, index, shape = _address(graph, value, layout, choice)
    kept = emit(graph, aten.index_select.default, rows, 0, index)
    return _shaped(graph, kept, shape)


def put(graph: fx.Graph, kept: fx.Node, whole: fx.Node, layout: Layout, choice: Choice) -> fx.Node:
    """Emit `whole` with the kept tokens in their places, as rows that its shape cuts."""
    rows, index, _ = _address(graph, whole, layout, choice)
    [_, width] = shape_of(rows)
    source = _shaped(graph, kept, [shape_of(index)[0], width])
    return emit(graph, aten.index_copy.default, rows, 0, index, source)


def _address(
    graph: fx.Graph, value: fx.Node, layout: Layout, choice: Choice
) -> tuple[fx.Node, fx.Node, list[int]]:
    """The value as rows, the numbers of the kept ones, and the shape of what they make."""
    sides = (1,) * (len(layout) - len(shape_of(value))) + shape_of(value)
    atoms: list[tuple[Atom, bool]] = []
    shape: list[int] = []
    for axis, side in zip(layout, sides, strict=True):
        own = cut(axis, choice.cuts)
        atoms += [(atom, side > 1) for atom in own]
        grown = [atom for atom in own if side > 1 or atom in choice.groups]
        shape += kept_shape((tuple(grown),), choice.count)
    addressed = [at for at, (atom, _) in enumerate(atoms) if _chosen(atom, choice)]
    lead = atoms[: addressed[-1] + 1]
    if missing := set(choice.groups) - {atom for atom, _ in lead}:
        raise TokensMixedError(f"%{value.name} does not tell images {_listed(missing)} apart")
    held = [atom.size if present else 1 for atom, present in lead]
    rows = _shaped(graph, value, [prod(held), prod(sides) // prod(held)])
    key = tuple(lead)
    if key not in choice.addresses:
        choice.addresses[key] = _index(graph, [atom for atom, _ in lead], held, value, choice)
    return rows, choice.addresses[key], shape


def _index(
    graph: fx.Graph, lead: Sequence[Atom], held: Sequence[int], value: fx.Node, choice: Choice
) -> fx.Node:
    """The numbers of the kept rows of a value whose rows are `lead`, as long as `held`."""
    index = _aligned(graph, lead, choice)
    token = next(at for at, atom in enumerate(lead) if atom.root == TOKENS)
    if (step := prod(held[token + 1 :])) > 1:
        index = emit(graph, aten.mul.Tensor, index, step)
    if prod(held) > held[token]:
        base = _shaped(graph, _counting(graph, prod(held), value), held)
        base = emit(graph, aten.slice.Tensor, base, token, 0, 1)
        index = emit(graph, aten.add.Tensor, index, base)
    return _shaped(graph, index, [prod(shape_of(index))])


def _aligned(graph: fx.Graph, lead: Sequence[Atom], choice: Choice) -> fx.Node:
    """The index with a dimension for each leading atom of a value, in their order."""
    order = [choice.groups.index(atom) for atom in lead if atom in choice.groups]
    token = next(at for at, atom in enumerate(lead) if atom.root == TOKENS)
    before = sum(atom in choice.groups for atom in lead[:token])
    order.insert(before, len(choice.groups))
    index = choice.index
    if order != sorted(order):
        index = emit(graph, aten.permute.default, index, order)
    sides = [
        choice.count if atom.root == TOKENS else atom.size if atom in choice.groups else 1
        for atom in lead
    ]
    return _shaped(graph, index, sides)


def _shaped(graph: fx.Graph, value: fx.Node, shape: Sequence[int]) -> fx.Node:
    if list(shape_of(value)) == list(shape):
        return value
    return emit(graph, aten.reshape.default, value, list(shape))


def _counting(graph: fx.Graph, count: int, like: fx.Node) -> fx.Node:
    """0, 1, ... on the device of a value."""
    value = like.meta["val"]
    node = graph.call_function(aten.arange.default, (count,), {"device": value.device})
    # Derived from nothing it would be a real tensor among values without data.
    node.meta["val"] = value.new_empty((count,), dtype=torch.int64)
    return node


def _listed(atoms: Collection[Atom]) -> str:
    return " ".join(layout_text((tuple(sorted(atoms)),)))


def _chosen(atom: Atom, choice: Choice) -> bool:
    return atom.root == TOKENS or atom in choice.groups


def _cuts(axes: Sequence[Axis]) -> dict[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for axis in axes:
        for atom in axis:
            if atom.root and atom.root != TOKENS:
                found.setdefault(atom.root, set()).update((atom.inner, atom.inner * atom.size))
    return {root: frozenset(places) for root, places in found.items()}


def cut(axis: Axis, cuts: dict[str, frozenset[int]]) -> Axis:
    """An axis with its atoms cut at the given places.

    Raises:
        TokensMixedError: where one does not divide another.
    """
    found: list[Atom] = []
    for atom in axis:
        places = [p for p in cuts.get(atom.root, ()) if atom.inner < p < atom.inner * atom.size]
        ends = [atom.inner * atom.size, *sorted(places, reverse=True), atom.inner]
        for high, low in pairwise(ends):
            if high % low:
                raise TokensMixedError(f"its images are cut at {low} and at {high}")
            found.append(Atom(atom.root, low, high // low))
    return tuple(found)
