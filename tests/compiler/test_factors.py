"""The algebra of factors against plain index arithmetic on real tensors."""

from __future__ import annotations

import itertools
from math import prod

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from turbo4d.compiler.factors import Axes, Axis, Root, joined, length, regrouped, whole


def digits(axis: Axis, index: int) -> dict[Root, int]:
    """What the position `index` of an axis adds to the index of each plain root."""
    found: dict[Root, int] = {}
    for atom in reversed(axis):
        digit, index = index % atom.size, index // atom.size
        parts = {atom.root: digit * atom.inner}
        if atom.root.product:
            parts = digits(atom.root.product, digit * atom.inner)
        for root, value in parts.items():
            found[root] = found.get(root, 0) + value
    return found


def assert_true_of(axes: Axes, roots: list[Root], value: Tensor) -> None:
    """Checks every element: its coordinates give back the coordinates it started with.

    A piece of a root that a reshape cut across carries over into its neighbours, so only the sum
    over all axes is compared, as one flat index.
    """
    strides = [prod(root.size for root in roots[at + 1 :]) for at in range(len(roots))]
    for position in itertools.product(*(range(side) for side in value.shape)):
        flat = 0
        for axis, index in zip(axes, position, strict=True):
            for root, at in digits(axis, index).items():
                flat += at * strides[roots.index(root)]
        assert flat == value[position], (position, axes)


def factorisations(total: int) -> st.SearchStrategy[list[int]]:
    """Shapes of `total` elements."""

    @st.composite
    def draw(pick: st.DrawFn) -> list[int]:
        left, shape = total, []
        while left > 1 and len(shape) < 4:
            side = pick(st.sampled_from([d for d in range(1, left + 1) if left % d == 0]))
            shape.append(side)
            left //= side
        return [*shape, left]

    return draw()


@st.composite
def walks(draw: st.DrawFn) -> tuple[list[int], list[tuple[list[int], list[int]]]]:
    """A first shape, then alternating permutations and reshapes."""
    first = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=3))
    steps: list[tuple[list[int], list[int]]] = []
    rank = len(first)
    for _ in range(draw(st.integers(0, 4))):
        order = draw(st.permutations(range(rank)))
        shape = draw(factorisations(prod(first)))
        steps.append((list(order), shape))
        rank = len(shape)
    return first, steps


def follow(
    first: list[int], steps: list[tuple[list[int], list[int]]]
) -> tuple[Axes, list[Root], Tensor]:
    roots = [Root(letter, side) for letter, side in zip("NFH", first, strict=False)]
    axes: Axes = tuple(map(whole, roots))
    value = torch.arange(prod(first)).view(first)
    for order, shape in steps:
        axes = regrouped([axes[at] for at in order], shape)
        value = value.permute(order).reshape(shape)
    return axes, roots, value


def crossed(axes: Axes) -> bool:
    return any(atom.root.product for axis in axes for atom in axis)


@given(walks())
def test_lengths_are_the_shape(walk: tuple[list[int], list[tuple[list[int], list[int]]]]) -> None:
    axes, _, value = follow(*walk)
    assert tuple(map(length, axes)) == tuple(value.shape)


@given(walks())
def test_every_element_is_where_its_factors_say(
    walk: tuple[list[int], list[tuple[list[int], list[int]]]],
) -> None:
    axes, roots, value = follow(*walk)
    if not crossed(axes):
        assert_true_of(axes, roots, value)


@given(walks())
def test_the_way_back_restores_the_roots(
    walk: tuple[list[int], list[tuple[list[int], list[int]]]],
) -> None:
    first, steps = walk
    axes, roots, _ = follow(first, steps)
    shapes = [first, *(shape for _, shape in steps)]
    for (order, _), before in zip(reversed(steps), reversed(shapes[:-1]), strict=True):
        axes = regrouped(axes, [before[at] for at in order])
        inverse = sorted(range(len(order)), key=order.__getitem__)
        axes = tuple(axes[at] for at in inverse)
    assert axes == tuple(map(whole, roots))


def test_pieces_of_one_root_grow_together() -> None:
    root = Root("N", 24)
    [batch, frames] = regrouped([whole(root)], [2, 12])
    assert joined([*batch, *frames]) == whole(root)
    assert joined([*frames, *batch]) == (*frames, *batch)
