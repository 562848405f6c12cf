"""rules: how each operator carries the token axis, and what of its operands must be taken.

An operator is listed where each token of its result depends on that token alone, of the operand it
names. Attention is the exception: where tokens are its queries, its keys and values stay whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import fx

from .alignment import At, agreed, outside, shape_of
from .layout import (
    Axis,
    Layout,
    TokensMixedError,
    holds_tokens,
    plain,
    regrouped,
    tokens_from_end,
)

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default


@dataclass(frozen=True)
class Carried:
    """What one call does to the tokens.

    Args:
        layout: of its result.
        shape_at: which argument is a shape, None for none.
        taken: operands from outside that hold all tokens, each with the layout that it is aligned
            with, from the right; a dimension of length 1 stands for any.
        whole: arguments that stay as they are, of all tokens.
    """

    layout: Layout
    shape_at: int | None = None
    taken: Mapping[fx.Node, Layout] = field(default_factory=dict[fx.Node, Layout])
    whole: frozenset[int] = frozenset()


def carried(node: fx.Node, at: At) -> Carried:
    """What a call does to the tokens.

    Args:
        node: a call with an operand of known layout.
        at: gives the layout of each.

    Raises:
        TokensMixedError: where it mixes tokens, or no rule says that it does not.
    """
    rule = _RULES.get(node.target)
    if rule is None and torch.Tag.pointwise in getattr(node.target, "tags", ()):
        rule = _elementwise
    if rule is None:
        raise TokensMixedError("no rule says that it keeps tokens apart")
    return rule(node, at)


def _first(node: fx.Node, at: At) -> Layout:
    """The layout of the first operand, which must be the only one that holds tokens."""
    layout = at(node.args[0])
    if layout is None or any(at(other) for other in node.all_input_nodes[1:]):
        raise TokensMixedError("tokens come in through more than its first operand")
    return layout


def _apart(axis: Axis, what: str) -> None:
    if holds_tokens(axis):
        raise TokensMixedError(f"it {what} the tokens")


def _same(node: fx.Node, at: At) -> Carried:
    return Carried(_first(node, at))


def _permute(node: fx.Node, at: At) -> Carried:
    layout = _first(node, at)
    return Carried(tuple(layout[int(axis)] for axis in _ints(node.args[1])))


def _reshape(node: fx.Node, at: At) -> Carried:
    return Carried(regrouped(_first(node, at), shape_of(node)), shape_at=1)


def _unsqueeze(node: fx.Node, at: At) -> Carried:
    layout = list(_first(node, at))
    layout.insert(_int(node.args[1]) % (len(layout) + 1), ())
    return Carried(tuple(layout))


def _squeeze(node: fx.Node, at: At) -> Carried:
    layout = list(_first(node, at))
    if not layout[_int(node.args[1])]:
        del layout[_int(node.args[1])]
    return Carried(tuple(layout))


def _expand(node: fx.Node, at: At) -> Carried:
    layout, shape = _first(node, at), shape_of(node)
    layout = ((),) * (len(shape) - len(layout)) + layout
    return Carried(
        tuple(axis or plain(side) for axis, side in zip(layout, shape, strict=True)), shape_at=1
    )


def _slice(node: fx.Node, at: At) -> Carried:
    layout, index = list(_first(node, at)), _int(node.args[1])
    _apart(layout[index], "slices")
    layout[index] = plain(shape_of(node)[index])
    return Carried(tuple(layout))


def _select(node: fx.Node, at: At) -> Carried:
    layout, index = list(_first(node, at)), _int(node.args[1])
    _apart(layout[index], "selects one of")
    del layout[index]
    return Carried(tuple(layout))


def _linear(node: fx.Node, at: At) -> Carried:
    *rows, last = _first(node, at)
    _apart(last, "multiplies")
    return Carried((*rows, plain(shape_of(node)[-1])))


def _product(node: fx.Node, at: At) -> Carried:
    """matmul, mm: the right side is a plain matrix."""
    if len(shape_of(node.args[1])) != 2:
        raise TokensMixedError("its right side is no matrix")
    return _linear(node, at)


def _added_product(node: fx.Node, at: At) -> Carried:
    bias, left, right = node.args[:3]
    layout = at(left)
    if layout is None or at(bias) or at(right) or len(shape_of(bias)) > 1:
        raise TokensMixedError("tokens come in through more than its left side")
    _apart(layout[-1], "multiplies")
    return Carried((*layout[:-1], plain(shape_of(node)[-1])))


def _layer_norm(node: fx.Node, at: At) -> Carried:
    layout = _first(node, at)
    for axis in layout[-len(_ints(node.args[1])) :]:
        _apart(axis, "normalises over")
    return Carried(layout)


def _group_norm(node: fx.Node, at: At) -> Carried:
    layout = _first(node, at)
    for axis in layout[1:]:
        _apart(axis, "normalises over")
    return Carried(layout)


def _along(node: fx.Node, at: At) -> Carried:
    """Softmax and its like: over one dimension."""
    layout = _first(node, at)
    _apart(layout[_int(node.args[1])], "normalises over")
    return Carried(layout)


def _reduce(node: fx.Node, at: At) -> Carried:
    layout = _first(node, at)
    over = {index % len(layout) for index in _ints(node.args[1] if len(node.args) > 1 else None)}
    for index in over or range(len(layout)):
        _apart(layout[index], "sums")
    if len(shape_of(node)) == len(layout):
        return Carried(tuple(() if at in over else axis for at, axis in enumerate(layout)))
    return Carried(tuple(axis for at, axis in enumerate(layout) if at not in over))


def _cat(node: fx.Node, at: At) -> Carried:
    parts: Any = node.args[0]
    index = _int(node.args[1]) if len(node.args) > 1 else 0
    index %= len(shape_of(node))
    layout = list(agreed(parts, at, shape_of(node), but=index))
    _apart(layout[index], "joins")
    taken: dict[fx.Node, Layout] = {}
    for part in parts:
        layout[index] = plain(shape_of(part)[index])
        taken |= outside([part], at, tuple(layout))
    layout[index] = plain(shape_of(node)[index])
    return Carried(tuple(layout), taken=taken)


def _elementwise(node: fx.Node, at: At) -> Carried:
    operands = [operand for operand in node.all_input_nodes if _is_tensor(operand)]
    layout = agreed(operands, at, shape_of(node))
    return Carried(layout, taken=outside(operands, at, layout))


def masks_of(node: fx.Node) -> tuple[Any, bool]:
    """The mask or bias of a fused attention, None for none; and whether it is causal."""
    given: dict[str, Any] = dict(zip(("mask", "drop", "causal"), node.args[3:], strict=False))
    mask = given.get("mask", node.kwargs.get("attn_mask"))
    return mask, bool(given.get("causal", node.kwargs.get("is_causal", False)))


def _attention(node: fx.Node, at: At) -> Carried:
    query, key, value = node.args[:3]
    layout = at(query)
    if layout is None:
        raise TokensMixedError("its keys are tokens and its queries are not")
    result = (*layout[:-1], plain(shape_of(node)[-1]))
    mask, causal = masks_of(node)
    place = tokens_from_end(layout)
    if place == -1:
        raise TokensMixedError("it multiplies the tokens")
    if place == -2:
        if mask is not None or causal:
            raise TokensMixedError("its queries are the tokens and it has a mask")
        whole = frozenset(index for index in (1, 2) if at(node.args[index]) is not None)
        return Carried(result, whole=whole)
    for operand in (key, value):
        other = at(operand)
        if other is not None and (tokens_from_end(other), other[place]) != (place, layout[place]):
            raise TokensMixedError("its keys lie in another order than its queries")
    operands: list[Any] = [key, value, *([] if mask is None else [mask])]
    if mask is not None and at(mask) is not None:
        raise TokensMixedError("its mask is made of tokens")
    taken: dict[fx.Node, Layout] = {}
    for operand in operands:
        rows = (*layout[:-2], *map(plain, shape_of(operand)[-2:]))
        taken |= outside([operand], at, rows)
    return Carried(result, taken=taken)


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def _int(value: Any) -> int:
    return int(value)


def _ints(value: Any) -> Sequence[int]:
    if value is None:
        return ()
    several = isinstance(value, (list, tuple))
    return list(map(int, cast("Sequence[Any]", value))) if several else [int(value)]


_RULES: dict[Any, Callable[[fx.Node, At], Carried]] = {
    **dict.fromkeys((aten.clone.default, aten._to_copy.default, aten.contiguous.default), _same),
    aten.permute.default: _permute,
    aten.reshape.default: _reshape,
    aten.unsqueeze.default: _unsqueeze,
    aten.squeeze.dim: _squeeze,
    aten.expand.default: _expand,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.linear.default: _linear,
    **dict.fromkeys((aten.matmul.default, aten.mm.default), _product),
    aten.addmm.default: _added_product,
    **dict.fromkeys((aten.layer_norm.default, aten.rms_norm.default), _layer_norm),
    aten.group_norm.default: _group_norm,
    aten.softmax.int: _along,
    **dict.fromkeys((aten.sum.dim_IntList, aten.mean.dim, aten.amax.default), _reduce),
    aten.cat.default: _cat,
    SDPA: _attention,
}
