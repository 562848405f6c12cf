"""alignment: operands laid out beside each other, as calls that broadcast align them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

from .layout import Axis, Layout, TokensMixedError, plain, tokens_from_end

At = Callable[[Any], "Layout | None"]
"""The layout of an operand, None for one that the region's entry does not reach."""


def shape_of(node: Any) -> tuple[int, ...]:
    """The shape of a node's value."""
    return tuple(int(side) for side in node.meta["val"].shape)


def agreed(
    operands: Sequence[fx.Node], at: At, shape: Sequence[int], but: int | None = None
) -> Layout:
    """What the operands, aligned from the right, say of each dimension of the result.

    Args:
        operands: of the call.
        at: gives the layout of each.
        shape: of the result.
        but: the dimension along which a concatenation joins them.

    Raises:
        TokensMixedError: where they say different things, or put tokens against tokens.
    """
    found: list[Axis] = [plain(side) for side in shape]
    where: set[int] = set()
    for operand in operands:
        layout = at(operand)
        if layout is None:
            continue
        where.add(tokens_from_end(layout))
        for back, axis in enumerate(reversed(layout), 1):
            known = found[-back]
            if not axis or len(shape) - back == but:
                continue
            if known not in (axis, plain(shape[-back])) and axis != plain(shape[-back]):
                raise TokensMixedError("its operands lie in different orders")
            if known == plain(shape[-back]):
                found[-back] = axis
    if len(where) != 1:
        raise TokensMixedError("it puts tokens against tokens")
    if but is not None and but - len(shape) in where:
        raise TokensMixedError("it joins the tokens")
    return tuple(found)


def outside(operands: Sequence[fx.Node], at: At, layout: Layout) -> dict[fx.Node, Layout]:
    """Operands from outside that hold all tokens, each with the layout it is aligned with."""
    back = -tokens_from_end(layout)
    return {
        operand: layout
        for operand in operands
        if at(operand) is None and len(shape_of(operand)) >= back and shape_of(operand)[-back] > 1
    }
