"""A gated feed-forward from the norm before it to the sum after it, row by row.

Most of what a transformer block of the family computes is such feed-forwards, and their middle is
eight times as wide as the block's values: operator by operator it is written and read several
times. On CUDA two kernels of Triton (`engines/triton_gated_rows.py`) write half of it and read it
once; elsewhere torch's own operators do it all, whose result is the same to rounding.
"""

# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear


@torch.library.custom_op("turbo4d::gated_rows", mutates_args=())
def gated_rows(
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
    """GEGLU (Shazeer 2020) of every row, projected back.

    Args:
        x: [..., C].
        norm_weight: [C], of a layer norm of `x`.
        norm_bias: [C], there where `norm_weight` is.
        eps: of the norm; None for no norm.
        up: [2 I, C], dense, in the dtype of `x`, as all weights; its second half is the gate.
        up_bias: [2 I].
        down: [N, I].
        down_bias: [N].
        add: [..., N], added to the result.

    Returns:
        [..., N] without gaps, in the dtype of `x`.
    """
    _check(x, (up, down), (norm_weight, norm_bias, up_bias, down_bias))
    normed = x if eps is None else layer_norm(x, x.shape[-1:], norm_weight, norm_bias, eps)
    value, gate = linear(normed, up, up_bias).chunk(2, -1)
    found = linear(value * gelu(gate), down, down_bias)
    return (found if add is None else add + found).contiguous()


@gated_rows.register_fake
def _like(
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
    return x.new_empty((*x.shape[:-1], down.shape[0]))


@gated_rows.register_kernel("cuda")
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
    from .engines.triton_gated_rows import launch

    _check(x, (up, down), (norm_weight, norm_bias, up_bias, down_bias))
    return launch(x, (norm_weight, norm_bias, eps), (up, up_bias, down, down_bias), add)


OPERATOR = torch.ops.turbo4d.gated_rows.default
"""The operator as graphs call it."""


def _check(x: Tensor, weights: tuple[Tensor, Tensor], vectors: tuple[Tensor | None, ...]) -> None:
    """Refuses what the kernels do not compute; a torch operator raises ValueError."""
    up, down = weights
    given = [each for each in (*weights, *vectors) if each is not None]
    fits = up.shape == (2 * down.shape[-1], x.shape[-1])
    if not fits or any(each.dtype != x.dtype or not each.is_contiguous() for each in given):
        raise ValueError(
            f"gated_rows: rows of {x.shape[-1]} channels in {x.dtype}, weights "
            f"{[(*each.shape, each.dtype) for each in weights]}; wanted dense weights of that "
            "dtype, up of two middles by channels and down of a middle."
        )
