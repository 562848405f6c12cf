"""Bytes that a graph moves through memory, operator by operator, with nothing fused.

Each operator reads its tensors once and writes its result once. A view moves nothing; a reshape
that cannot be a view copies; an expanded axis is read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from turbo4d.passes.compat import aliased_argument

aten = torch.ops.aten


def bytes_of(node: fx.Node) -> int:
    """Bytes one call reads and writes; 0 for a view and for what is no call."""
    if node.op != "call_function" or is_view(node):
        return 0
    return sum(value_bytes(operand) for operand in node.all_input_nodes) + value_bytes(node)


def count_bytes(graph: fx.Graph) -> int:
    """Bytes of one run of a graph."""
    return sum(bytes_of(node) for node in graph.nodes)


def is_view(node: fx.Node) -> bool:
    """Whether a call shows a value that exists, or a part of a tuple, and moves nothing."""
    if isinstance(node.meta["val"], (list, tuple)):
        return aliased_argument(node.target) is not None
    if node.target is aten.reshape.default:
        return _fits(node)
    return node.target is not aten.contiguous.default and (
        aliased_argument(node.target) is not None or "getitem" in str(node.target)
    )


def _fits(node: fx.Node) -> bool:
    """Whether a reshape needs no copy."""
    source: Any = node.args[0]
    try:
        aten.view.default(source.meta["val"], list(node.meta["val"].shape))
    except (RuntimeError, ValueError):
        return False
    return True


def value_bytes(node: fx.Node) -> int:
    """Bytes of the tensors that a node gives, each element that is stored counted once."""
    value: Any = node.meta["val"]
    if isinstance(value, Tensor):
        return _distinct(value)
    parts: Sequence[Any] = value
    return sum(_distinct(part) for part in parts if isinstance(part, Tensor))


def _distinct(value: Tensor) -> int:
    """Bytes of the elements that are stored, each once."""
    count = 1
    for size, stride in zip(value.shape, value.stride(), strict=True):
        count *= size if stride else 1
    return count * value.element_size()
