"""attention-products: which side of a product is queries, keys, weights or values.

Axes are counted from the end, so that a broadcast in front does not move them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from turbo4d.compiler.node_values import shape_of

aten = torch.ops.aten
_PRODUCTS: dict[object, int] = {
    aten.matmul.default: 0, aten.bmm.default: 0, aten.mm.default: 0, aten.baddbmm.default: 1,
}  # fmt: skip
"""Products of matrices, with the position of their left operand."""


@dataclass(frozen=True)
class Scores:
    """A product of queries and keys.

    Args:
        query: with queries and their features.
        query_axis: where the queries lie in it.
        key: with keys and their features.
        key_axis: where the keys lie in it.
        batch: the axes of `query` that are neither queries nor features.
    """

    query: fx.Node
    query_axis: int
    key: fx.Node
    key_axis: int
    batch: tuple[int, ...]


def is_product(node: fx.Node) -> bool:
    """Whether a node multiplies two values, neither of them by its operator's nature a weight."""
    return node.target in _PRODUCTS or len(_equation(node)) == 3


def sides(product: fx.Node) -> tuple[fx.Node, fx.Node]:
    """The two values that a product multiplies."""
    if product.target is aten.einsum.default:
        operands: Any = product.args[1]
        return operands[0], operands[1]
    first = _PRODUCTS[product.target]
    left: Any = product.args[first]
    right: Any = product.args[first + 1]
    return left, right


def scores_of(product: fx.Node, axis: int) -> Scores | None:
    """What a product multiplies, where its result has the keys along `axis`."""
    left, right = sides(product)
    if product.target is aten.einsum.default:
        return _named_scores(product, axis)
    if min(len(shape_of(left)), len(shape_of(right))) < 2 or axis not in (-1, -2):
        return None
    if axis == -1:
        return Scores(left, -2, right, -1, tuple(range(len(shape_of(left)) - 2)))
    return Scores(right, -1, left, -2, tuple(range(len(shape_of(right)) - 2)))


def sums_over(product: fx.Node, weights: fx.Node, axis: int) -> bool:
    """Whether a product takes the weighted sum of values along `axis` of the weights."""
    left, right = sides(product)
    if left is right:
        return False
    if product.target is aten.einsum.default:
        first, second, result = _equation(product)
        mine, other = (first, second) if weights is left else (second, first)
        return weights in (left, right) and mine[axis] in other and mine[axis] not in result
    return (weights is left and axis == -1) or (weights is right and axis == -2)


def _named_scores(product: fx.Node, axis: int) -> Scores | None:
    first, second, result = _equation(product)
    at = len(result) + axis
    if at < 0 or (result[at] in first) == (result[at] in second):
        return None
    left, right = sides(product)
    pairs = [(left, first), (right, second)]
    (query, of_query), (key, of_key) = pairs if result[at] in second else pairs[::-1]
    along = [letter for letter in of_query if letter in result and letter not in of_key]
    batch = [letter for letter in of_query if letter in result and letter in of_key]
    if len(along) != 1:
        return None
    return Scores(
        query,
        of_query.index(along[0]) - len(of_query),
        key,
        of_key.index(result[at]) - len(of_key),
        tuple(of_query.index(letter) for letter in batch),
    )


def _equation(node: fx.Node) -> list[str]:
    """The letters of an einsum's two operands and of its result; nothing for any other node."""
    if node.target is not aten.einsum.default:
        return []
    given: Any = node.args[0]
    sources, arrow, result = given.replace(" ", "").partition("->")
    plain = arrow and "." not in given
    return [*sources.split(","), result] if plain and sources.count(",") == 1 else []
