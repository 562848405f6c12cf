"""fuse-channels: norms over groups of channels, and convolutions over one axis, channels last.

rewrite: silu(group_norm(add(x, s))), s of one value for each image and channel
         -> permute(turbo4d.group_norm(permute(x), ..., shift=s, silu=True))
         add(y, conv3d(x, w)), w [N, C, K, 1, 1]
         -> permute(turbo4d.sequence_convolution(permute(x), w, ..., add=permute(y)))
Requires: float32 on a CPU; channels that are multiples of 32. The sum before a norm, the SiLU after
it and the sum after a convolution are taken in where nothing else reads what lies between.
Ensures: the last call of each place keeps its name. What a place takes and gives has its channels
last, so between two of them the permutes are views.
Error: rounding.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import fx
from turbo4d.passes.base import become, emit

from . import row_ops as row_ops  # registers the operators
from .places import PANEL, aten, given, inside, node_of, only_user, sum_after, taken, value_of

_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)


def fuse_convolution(node: fx.Node, kept: Collection[str]) -> str | None:
    """Fuse a convolution over one axis; gives the name of the kernel's call, or None."""
    if node.target not in _CONVOLUTIONS or not _along_one_axis(node):
        return None
    graph, x = node.graph, node_of(node.args[0])
    weight, bias = node.args[1], given(node, 2, (None,))[0]
    last, add = sum_after(node, kept)
    inward, outward = _orders(value_of(x).dim())
    with graph.inserting_before(last):
        rows = emit(graph, aten.permute.default, x, inward)
        more = None if add is None else emit(graph, aten.permute.default, add, inward)
        call = torch.ops.turbo4d.sequence_convolution.default
        found = emit(graph, call, rows, weight, bias, more)
    become(last, aten.permute.default, found, outward)
    return found.name


def fuse_group_norm(node: fx.Node, kept: Collection[str]) -> bool:
    """Fuse a norm over groups of channels; says whether it could."""
    x = node_of(node.args[0])
    value = value_of(x)
    batch, width = value.shape[:2]
    if width % PANEL or not taken(value, value.numel() // width):
        return False
    groups, weight, bias, eps = given(node, 1, (1, None, None, 1e-5))
    length, shift = value.shape[2] if value.dim() > 4 else 1, None
    total = inside(x, aten.add.Tensor, kept)
    for y, s in () if total is None else (total.args, total.args[::-1]):
        if total is not None and not total.kwargs and _shifts(y, s):
            x, shift = node_of(y), node_of(s)
            length = value_of(shift).numel() // (batch * width)
            break
    after = only_user(node, kept)
    last = after if after is not None and after.target is aten.silu.default else node
    graph = node.graph
    inward, outward = _orders(value.dim())
    with graph.inserting_before(last):
        rows = emit(graph, aten.permute.default, x, inward)
        if shift is not None:
            shift = emit(graph, aten.permute.default, shift, inward)
            shift = emit(graph, aten.reshape.default, shift, [batch * length, width])
        call = torch.ops.turbo4d.group_norm.default
        arguments = (length, groups, shift, weight, bias, eps, last is not node)
        found = emit(graph, call, rows, *arguments)
    become(last, aten.permute.default, found, outward)
    return True


def _shifts(x: Any, shift: Any) -> bool:
    """Whether `shift` has one value for each image and channel of `x`, [B, C, ...]."""
    if not isinstance(x, fx.Node) or not isinstance(shift, fx.Node):
        return False
    whole, part = value_of(x).shape, value_of(shift).shape
    if len(whole) != len(part) or whole[:2] != part[:2] or value_of(shift).dtype != torch.float32:
        return False
    return part[2] in (1, whole[2] if len(whole) > 4 else 1) and all(s == 1 for s in part[3:])


def _along_one_axis(node: fx.Node) -> bool:
    """Whether a convolution mixes the values of one axis alone, and keeps that axis's length."""
    x, weight = (value_of(each) for each in node.args[:2])
    stride, padding, dilation, groups = given(node, 3, (1, 0, 1, 1))
    taps, axes = weight.shape[2], weight.dim() - 2
    if x.dim() != axes + 2 or weight.dtype != torch.float32 or groups != 1:
        return False
    if taps == 1 or taps % 2 == 0 or any(side != 1 for side in weight.shape[3:]):
        return False
    if _each(stride, axes) + _each(dilation, axes) != [1] * 2 * axes:
        return False
    if _each(padding, axes) != [taps // 2] + [0] * (axes - 1):
        return False
    widths = not any(side % PANEL for side in weight.shape[:2])
    return widths and taken(x, x.numel() // x.shape[1])


def _orders(axes: int) -> tuple[list[int], list[int]]:
    """Permutations that put the channels last, and second again."""
    return [0, *range(2, axes), 1], [0, axes - 1, *range(1, axes - 1)]


def _each(value: Any, axes: int) -> list[int]:
    found = [value] if isinstance(value, int) else [*value]
    return found * axes if len(found) == 1 else found
