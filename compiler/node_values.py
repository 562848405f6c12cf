"""What a node of a graph gives, without data: its value, and the value's shape."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def value_of(node: Any) -> Tensor:
    """The shape-carrying value of a node that yields one tensor."""
    value = node.meta["val"]
    if not isinstance(value, Tensor):
        raise TypeError(f"%{node.name} yields {type(value).__name__}, wanted one tensor")
    return value


def shape_of(node: Any) -> tuple[int, ...]:
    """The shape of a node's value."""
    return tuple(int(side) for side in value_of(node).shape)
