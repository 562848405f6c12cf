"""Attention within sequences of few tokens from the norm before it to the sum after it.

A camera's sequence is the 8 views of a pixel, a motion's its 5 frames. The projections around such
an attention are a hundred times its work, and what lies between them is as large as the network's
values. Here all of it is one call: tokens are read at their stride and the result is written where
its layout wants it, so nothing between is ever stored and nothing is copied into groups.

On CUDA kernels of Triton do it (`engines/triton_token_attention.py`); elsewhere torch's own
operators, whose result is the same to rounding.
"""

# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, scaled_dot_product_attention

from .engines.triton_tuning import MOST_TOKENS as MOST_TOKENS


@torch.library.custom_op("turbo4d::token_attention", mutates_args=())
def token_attention(
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    project: Tensor,
    bias: Tensor | None,
    heads: int,
    scale: float,
    add: Tensor | None,
) -> Tensor:
    """Self-attention of each group over its tokens.

    Args:
        x: [G, P, T, C], groups in two axes, of any strides but the last, which is 1: such as
            branches x frames and pixels, with T = V views apart; at most `MOST_TOKENS` tokens.
        norm_weight: [C], of a layer norm of `x`.
        norm_bias: [C], there where `norm_weight` is.
        eps: of the norm; None for no norm.
        query: [C, C], dense, in the dtype of `x`, as all weights.
        key: [C, C].
        value: [C, C].
        project: [C, C], of the result.
        bias: [C], of the result.
        heads: N, into which C is cut.
        scale: of the scores.
        add: as `x`, of any strides but the last, added to the result.

    Returns:
        [G, P, T, C] in the dtype of `x`, lying as it does where that is without gaps.
    """
    _check(x, add, (query, key, value, project), (norm_weight, norm_bias, bias), heads)
    normed = x if eps is None else layer_norm(x, x.shape[-1:], norm_weight, norm_bias, eps)
    q, k, v = (_by_head(linear(normed, each), heads) for each in (query, key, value))
    found = scaled_dot_product_attention(q, k, v, scale=scale)
    found = linear(found.transpose(2, 3).flatten(3), project, bias)
    return torch.empty_like(x).copy_(found if add is None else add + found)


def _by_head(x: Tensor, heads: int) -> Tensor:
    """[G, P, T, C] as [G, P, N, T, C / N]."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(2, 3)


@token_attention.register_fake
def _like(x: Tensor, *rest: object) -> Tensor:
    return torch.empty_like(x)


@token_attention.register_kernel("cuda")
def _on_cuda(
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    project: Tensor,
    bias: Tensor | None,
    heads: int,
    scale: float,
    add: Tensor | None,
) -> Tensor:
    from .engines.triton_token_attention import launch

    _check(x, add, (query, key, value, project), (norm_weight, norm_bias, bias), heads)
    norm, weights = (norm_weight, norm_bias, eps), (query, key, value, project, bias)
    return launch(x, norm, weights, heads, scale, add)


OPERATOR = torch.ops.turbo4d.token_attention.default
"""The operator as graphs call it."""


def _check(
    x: Tensor,
    add: Tensor | None,
    weights: tuple[Tensor, ...],
    vectors: tuple[Tensor | None, ...],
    heads: int,
) -> None:
    """Refuses what the kernels do not compute; a torch operator raises ValueError."""
    rows = [x] if add is None else [x, add]
    channels = x.shape[-1]
    if any(each.shape != x.shape or each.dim() != 4 or each.stride(-1) != 1 for each in rows):
        raise ValueError(
            f"token_attention: x and what is added are {[(*each.shape,) for each in rows]} with "
            f"channels {[each.stride(-1) for each in rows]} apart; wanted one shape of groups "
            "outer, groups inner, tokens, channels, with channels 1 apart."
        )
    given = [each for each in (*weights, *vectors) if each is not None]
    square = all(each.shape == (channels, channels) for each in weights)
    if not square or any(each.dtype != x.dtype or not each.is_contiguous() for each in given):
        raise ValueError(
            f"token_attention: weights are {[(*each.shape, each.dtype) for each in weights]}; "
            f"wanted dense ones of {channels} x {channels} in {x.dtype}."
        )
    if x.shape[2] > MOST_TOKENS or channels % heads or (vectors[0] is None) != (vectors[1] is None):
        raise ValueError(
            f"token_attention: {x.shape[2]} tokens of {channels} channels in {heads} heads; wanted "
            f"at most {MOST_TOKENS} tokens, and heads of whole channels."
        )
