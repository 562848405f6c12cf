"""What the fusing of rows asks of a graph: who reads a value, and what a call was given."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten
PANEL = 32
"""Widths that the kernels take are multiples of it."""
LEAST_ROWS = 128
"""Below it packing the weights costs too much of what is gained."""


def inside(node: Any, target: Any, kept: Collection[str], users: int = 1) -> fx.Node | None:
    """A call of `target` that only what is fused reads; None for anything else."""
    if not isinstance(node, fx.Node) or node.target is not target:
        return None
    return node if len(node.users) == users and node.name not in kept else None


def only_user(node: fx.Node, kept: Collection[str]) -> fx.Node | None:
    """The one call that reads a value which need not stay."""
    return next(iter(node.users)) if len(node.users) == 1 and node.name not in kept else None


def split_into_heads(operand: Any, kept: Collection[str]) -> fx.Node | None:
    """The linear whose columns are cut into heads."""
    turned = inside(operand, aten.permute.default, kept)
    if turned is None or listed(turned.args[1]) != [0, 2, 1, 3]:
        return None
    cut = inside(turned.args[0], aten.reshape.default, kept)
    if cut is None:
        return None
    linear = inside(cut.args[0], aten.linear.default, kept)
    before = None if linear is None else linear.meta["val"].shape
    return linear if before is not None and cut.meta["val"].shape[:2] == before[:2] else None


def sum_after(node: fx.Node, kept: Collection[str]) -> tuple[fx.Node, fx.Node | None]:
    """The call that gives `node` plus another value of its shape, and that value; or the node."""
    total = only_user(node, kept)
    if total is None or not is_sum(total):
        return node, None
    one, other = (node_of(operand) for operand in total.args)
    return total, other if one is node else one


def is_sum(node: fx.Node) -> bool:
    """Whether a call adds two tensors of the same shape and type."""
    if node.target is not aten.add.Tensor or node.kwargs or len(node.args) != 2:
        return False
    if not all(isinstance(operand, fx.Node) for operand in node.args):
        return False
    one, other, total = (value_of(each) for each in (*node.args, node))
    return one.shape == other.shape == total.shape and one.dtype == other.dtype == total.dtype


def taken(value: Tensor, rows: int) -> bool:
    """Whether the kernels take a value's type and device, and are worth their while."""
    return value.dtype == torch.float32 and value.device.type == "cpu" and rows >= LEAST_ROWS


def given(node: fx.Node, first: int, absent: tuple[Any, ...]) -> tuple[Any, ...]:
    """Positional arguments from `first` on, `absent` standing for those that are left out."""
    found = node.args[first : first + len(absent)]
    return (*found, *absent[len(found) :])


def listed(value: Any) -> list[Any]:
    """A shape or an order among a call's arguments."""
    return list(value)


def value_of(node: Any) -> Tensor:
    """What a node gives, without data."""
    return node.meta["val"]


def node_of(value: Any) -> fx.Node:
    """An argument that is a node."""
    return value
