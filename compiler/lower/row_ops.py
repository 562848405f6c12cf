"""Operators of torch over the kernels of `row_kernels`: what a lowered graph may call.

All take float32 on a CPU, channels last, and give a dense result; what is absent is None. That of
feed-forwards is the runtime's, to which this adds the kernel of the CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from turbo4d.runtime.gated_feed_forward import by_torch, check

from .places import PANEL
from .row_kernels import run

_TORCH: Any = torch.library
_LIBRARY: Any = _TORCH.Library("turbo4d", "FRAGMENT")
_NORM = "Tensor? norm_weight, Tensor? norm_bias, float? eps"
_LIBRARY.define(
    f"short_attention(Tensor x, {_NORM}, Tensor query, Tensor key, Tensor value, Tensor out, "
    "Tensor? out_bias, int heads, float scale, Tensor? add) -> Tensor"
)
_LIBRARY.define(
    "sequence_convolution(Tensor x, Tensor weight, Tensor? bias, Tensor? add) -> Tensor"
)
_LIBRARY.define(
    "group_norm(Tensor x, int length, int groups, Tensor? shift, Tensor? weight, Tensor? bias, "
    "float eps, bool silu) -> Tensor"
)


def gated_feed_forward(
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float | None,
    up: Tensor,
    up_bias: Tensor | None,
    down: Tensor,
    down_bias: Tensor | None,
    add: Tensor | None,
) -> Tensor:
    """`runtime.gated_feed_forward` on a CPU; what the kernel does not take is torch's own."""
    widths = (x.shape[-1], up.shape[0], down.shape[0])
    if x.dtype != torch.float32 or any(width % PANEL for width in widths):
        return by_torch(x, norm_weight, norm_bias, eps, up, up_bias, down, down_bias, add)
    check(x, up, down, (norm_weight, norm_bias, up_bias, down_bias))
    inner, width, last = down.shape[1], x.shape[-1], down.shape[0]
    out = x.new_empty((*x.shape[:-1], last))
    norm = (int(eps is not None), _dense(norm_weight), _dense(norm_bias), eps or 0.0)
    weights = map(_dense, (up, up_bias, down, down_bias, add))
    x = x.contiguous()
    rows = x.numel() // width
    run("gated_feed_forward", (x, rows, width, inner, last, *norm, *weights, out))
    return out


def short_attention(
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    out_bias: Tensor | None,
    heads: int,
    scale: float,
    add: Tensor | None,
) -> Tensor:
    """Self-attention within short sequences, from the norm before it to the sum after.

    Args:
        x: [G, L, C].
        norm_weight: [C], of a layer norm of `x`.
        norm_bias: [C].
        eps: of the norm; None for no norm.
        query: [C, C], weights of the queries.
        key: [C, C], of the keys.
        value: [C, C], of the values.
        out: [C, C], of the result.
        out_bias: [C].
        heads: into which C is cut.
        scale: of the scores.
        add: [G, L, C], added to the result.

    Returns:
        [G, L, C], dense.
    """
    groups, length, width = x.shape
    result = torch.empty((groups, length, width), dtype=x.dtype)
    sizes = (groups, length, width, width // heads, float(scale))
    norm = (int(eps is not None), _dense(norm_weight), _dense(norm_bias), eps or 0.0)
    weights = map(_dense, (query, key, value, out, out_bias, add))
    run("short_attention", (x.contiguous(), *sizes, *norm, *weights, result))
    return result


def sequence_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, add: Tensor | None
) -> Tensor:
    """A convolution over one axis, of stride one, zeros beyond its ends, and the sum after it.

    Args:
        x: [B, T, ..., C], the convolution running over T.
        weight: [N, C, K, ...], K odd, all further sizes 1.
        bias: [N].
        add: [B, T, ..., N], added to the result.

    Returns:
        [B, T, ..., N], dense.
    """
    last, width, taps = weight.shape[:3]
    out = x.new_empty((*x.shape[:-1], last))
    batch, length = x.shape[:2]
    sizes = (batch, length, x.numel() // (batch * length * width), width, taps, last)
    run("sequence_convolution", (x.contiguous(), *sizes, *map(_dense, (weight, bias, add)), out))
    return out


def group_norm(
    x: Tensor,
    length: int,
    groups: int,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    silu: bool,
) -> Tensor:
    """A norm over groups of channels, with the sum before it and the SiLU after it.

    Args:
        x: [B, ..., C]; what lies between makes T images of a sequence, or one.
        length: T.
        groups: into which C is cut.
        shift: [B T, C], added to every row of an image before the norm.
        weight: [C].
        bias: [C].
        eps: of the norm.
        silu: whether SiLU follows.

    Returns:
        [B, ..., C], dense.
    """
    batch, width = x.shape[0], x.shape[-1]
    out = x.new_empty(x.shape)
    sizes = (batch, length, x.numel() // (batch * length * width), width, groups)
    affine = map(_dense, (shift, weight, bias))
    run("group_norm", (x.contiguous(), *sizes, *affine, eps, int(silu), out))
    return out


def _dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _like(x: Tensor, *rest: object) -> Tensor:
    return x.new_empty(x.shape)


def _convolved(x: Tensor, weight: Tensor, *rest: object) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


_LIBRARY.impl("gated_feed_forward", gated_feed_forward, "CPU")
for _function, _shape in (
    (short_attention, _like),
    (sequence_convolution, _convolved),
    (group_norm, _like),
):
    _LIBRARY.impl(_function.__name__, _function, "CPU")
    _TORCH.register_fake(f"turbo4d::{_function.__name__}", _shape, lib=_LIBRARY)
