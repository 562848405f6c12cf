"""attention: softmax, and the fused attention written out.

In the half types scores and softmax are float32, as within torch's own kernels: a score of 16 in
bfloat16 is off by up to 1/32, and its weight by 3 %. Queries and keys are cast before their
product, the weights after the softmax, before their product with the values.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from .writing import (
    Rule,
    Writer,
    args_of,
    argument,
    aten,
    cast,
    dtype_of,
    number,
    operand,
    shape_of,
    wide,
)


def _softmax(w: Writer, node: fx.Node) -> str:
    given, axis = args_of(node)[:2]
    dtype, within = dtype_of(node), wide(dtype_of(node))
    found = w.add("Softmax", [operand(w, given, within)], axis=axis)
    return cast(w, found, within, dtype)


def _attention(w: Writer, node: fx.Node) -> str:
    query, key, value = (given for given in args_of(node)[:3])
    dtype, rank = dtype_of(node), len(shape_of(query))
    within = wide(dtype)
    scale: Any = node.kwargs.get("scale")
    scale = 1 / math.sqrt(shape_of(query)[-1]) if scale is None else scale
    turned = [*range(rank - 2), rank - 1, rank - 2]
    keys = w.add("Transpose", [operand(w, key, within)], perm=turned)
    # Torch scales both sides by the root, which overflows later; one factor costs one pass.
    scaled = w.add("Mul", [operand(w, query, within), number(w, scale, within)])
    scores = w.add("MatMul", [scaled, keys])
    seen, added = _mask(w, node)
    if seen is not None:
        scores = w.add("Where", [seen, scores, number(w, -math.inf, within)])
    elif added is not None:
        scores = w.add("Add", [scores, operand(w, added, within)])
    weights = w.add("Softmax", [scores], axis=-1)
    if seen is not None:  # a query that sees no key gives zero in torch, not NaN
        weights = w.add("Where", [seen, weights, number(w, 0, within)])
    return w.add("MatMul", [cast(w, weights, within, dtype), w.name(value)])


def _mask(w: Writer, node: fx.Node) -> tuple[str | None, fx.Node | None]:
    """Which keys a query sees, or what is added to its scores; at most one of the two."""
    if argument(node, 5, "is_causal", False):
        query, key = (shape_of(given)[-2] for given in args_of(node)[:2])
        return w.constant(torch.ones(query, key, dtype=torch.bool).tril()), None
    mask: Any = argument(node, 3, "attn_mask", None)
    if mask is not None and dtype_of(mask) == torch.bool:
        return w.name(mask), None
    return None, mask


def _grouped(node: fx.Node) -> str | None:
    if node.kwargs.get("enable_gqa"):
        return "attention whose heads share keys (enable_gqa) has no ONNX form here"
    return None


RULES: dict[Any, Rule] = {
    aten.softmax.int: _softmax,
    aten.scaled_dot_product_attention.default: _attention,
}
"""Weights that add up to one."""

REASONS = {aten.scaled_dot_product_attention.default: _grouped}
"""Why a call of them cannot be written."""
