"""constants: what is computed from no tensor at all.

Fills of any size are one number spread out; everything else stands in the graph as it is. What
torch leaves undefined is zero.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from .writing import Writer, args_of, aten, dtype_of, ints, number, shape_of

INLINE_VALUES = 64
"""Fills up to this many values stand in the graph as they are."""

_FILLS = {aten.zeros.default: 0, aten.ones.default: 1, aten.empty.memory_format: 0}


def constant(w: Writer, node: fx.Node) -> str:
    """Write a call that takes no tensor; gives the name of its value."""
    target: Any = node.target
    if target in (*_FILLS, aten.full.default):
        filled: Any = _FILLS[target] if target in _FILLS else args_of(node)[1]
        if node.meta["val"].numel() <= INLINE_VALUES:
            return w.constant(torch.full(shape_of(node), filled, dtype=dtype_of(node)))
        return w.add("Expand", [number(w, filled, dtype_of(node)), ints(w, shape_of(node))])
    return w.constant(target(*args_of(node), **{**node.kwargs, "device": "cpu"}))
