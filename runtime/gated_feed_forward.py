"""A gated feed-forward from the norm before it to the sum after it: one operator for all devices.

Most of what a transformer block computes is such feed-forwards, and their middle is eight times as
wide as the block's values: operator by operator it is written and read several times. On CUDA two
kernels of Triton (`engines/triton_gated_feed_forward.py`) write half of it and read it once; on a
CPU the compiler brings C++ for it (`compiler/lower/row_ops.py`). Elsewhere, and for what these do
not take, torch's own operators do it all, whose result is the same to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear

_TORCH: Any = torch.library
_LIBRARY: Any = _TORCH.Library("turbo4d", "FRAGMENT")
_LIBRARY.define(
    "gated_feed_forward(Tensor x, Tensor? norm_weight, Tensor? norm_bias, float? eps, Tensor up, "
    "Tensor? up_bias, Tensor down, Tensor? down_bias, Tensor? add) -> Tensor"
)


def by_torch(
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
    """GEGLU (Shazeer 2020) of every row, projected back: what the operator gives.

    Args:
        x: [..., C].
        norm_weight: [C], of a layer norm of `x`.
        norm_bias: [C], there where `norm_weight` is.
        eps: of the norm; None for no norm.
        up: [2 I, C], in the dtype of `x`, as all weights; its second half is the gate.
        up_bias: [2 I].
        down: [N, I].
        down_bias: [N].
        add: [..., N], added to the result.

    Returns:
        [..., N] without gaps, in the dtype of `x`.

    Raises:
        ValueError: the weights do not fit the rows.
    """
    check(x, up, down, (norm_weight, norm_bias, up_bias, down_bias))
    normed = x if eps is None else layer_norm(x, x.shape[-1:], norm_weight, norm_bias, eps)
    value, gate = linear(normed, up, up_bias).chunk(2, -1)
    found = linear(value * gelu(gate), down, down_bias)
    return (found if add is None else add + found).contiguous()


def _on_cuda(
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
    from .engines.triton_gated_feed_forward import launch

    check(x, up, down, (norm_weight, norm_bias, up_bias, down_bias))
    return launch(x, (norm_weight, norm_bias, eps), (up, up_bias, down, down_bias), add)


def check(x: Tensor, up: Tensor, down: Tensor, vectors: Sequence[Tensor | None]) -> None:
    """Refuses what no kernel computes.

    Args:
        x: the rows.
        up: the first weight.
        down: the last weight.
        vectors: of the norm and the biases.

    Raises:
        ValueError: the weights do not fit the rows; a torch operator raises no other.
    """
    fits = up.shape == (2 * down.shape[-1], x.shape[-1])
    given = (up, down, *(each for each in vectors if each is not None))
    if not fits or any(each.dtype != x.dtype for each in given):
        raise ValueError(
            f"gated_feed_forward: rows of {x.shape[-1]} channels in {x.dtype}, weights "
            f"{[(*each.shape, each.dtype) for each in (up, down)]}; wanted weights of that dtype, "
            "up of two middles by channels and down of a middle."
        )


def _like(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty((*x.shape[:-1], rest[5].shape[0]))


_LIBRARY.impl("gated_feed_forward", by_torch, "CompositeExplicitAutograd")
_LIBRARY.impl("gated_feed_forward", _on_cuda, "CUDA")
_TORCH.register_fake("turbo4d::gated_feed_forward", _like, lib=_LIBRARY)
OPERATOR = torch.ops.turbo4d.gated_feed_forward.default
"""The operator as graphs call it."""
