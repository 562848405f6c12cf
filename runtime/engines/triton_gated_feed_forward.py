# pyright: reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false
# pyright: reportInvalidTypeForm=false
"""A gated feed-forward from norm to sum, in Triton's language.

The first kernel finds a tile's statistics, normalises blocks of channels, multiplies them by some
columns of both halves of the weight, and writes the gated product alone. The second is the one that
ends an attention: product, bias and sum. Sums are in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .triton_kernels import tl, triton
from .triton_token_attention import product, project_rows, statistics
from .triton_tuning import Tuning, untimed_rows

_ROOT_HALF: Any = tl.constexpr(0.7071067811865476)


@triton.jit
def _gate(
    x, out, up, bias, norm_weight, norm_bias, eps, rows,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr,
    COLUMNS: tl.constexpr, NORM: tl.constexpr, AFFINE: tl.constexpr, BIAS: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there, asked = row < rows, column < WIDTH
    x_row = x + row * CHANNELS
    kind = x.dtype.element_ty
    mean, spread = there.to(tl.float32), there.to(tl.float32)
    if NORM:
        mean, spread = statistics(x_row, there, eps, CHANNELS, ROWS, STEP)
    value = tl.zeros((ROWS, COLUMNS), tl.float32)
    gate = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, CHANNELS, STEP):
        c = first + tl.arange(0, STEP)
        inside = c < CHANNELS
        block = tl.load(x_row[:, None] + c[None, :], there[:, None] & inside[None, :], 0.0)
        if NORM:
            block = (block.to(tl.float32) - mean[:, None]) * spread[:, None]
            if AFFINE:
                by = tl.load(norm_weight + c, inside, 0.0).to(tl.float32)
                plus = tl.load(norm_bias + c, inside, 0.0).to(tl.float32)
                block = block * by[None, :] + plus[None, :]
            block = block.to(kind)
        at = c[:, None] + (column * CHANNELS)[None, :]
        known = inside[:, None] & asked[None, :]
        value = product(block, tl.load(up + at, known, 0.0), value, PRECISION, WIDEN)
        at += WIDTH * CHANNELS
        gate = product(block, tl.load(up + at, known, 0.0), gate, PRECISION, WIDEN)
    if BIAS:
        value += tl.load(bias + column, asked, 0.0).to(tl.float32)[None, :]
        gate += tl.load(bias + WIDTH + column, asked, 0.0).to(tl.float32)[None, :]
    found = value * (0.5 * gate * (1.0 + tl.math.erf(gate * _ROOT_HALF)))
    at = row[:, None] * WIDTH + column[None, :]
    tl.store(out + at, found.to(kind), there[:, None] & asked[None, :])


def launch(
    x: Tensor,
    norm: tuple[Tensor | None, Tensor | None, float | None],
    weights: tuple[Tensor, Tensor | None, Tensor, Tensor | None],
    add: Tensor | None,
    tuning: Tuning | None = None,
) -> Tensor:
    """The operator `turbo4d::gated_feed_forward` by the kernels.

    Args:
        x: [..., C].
        norm: weight, bias and epsilon of a layer norm of `x`; no epsilon, no norm.
        weights: up [2 I, C] and its bias, down [N, I] and its bias.
        add: [..., N], added to the result.
        tuning: how the work is cut; a rule's where None.

    Returns:
        [..., N] without gaps.
    """
    up, up_bias, down, down_bias = map(_dense, weights)
    norm_weight, norm_bias, eps = _dense(norm[0]), _dense(norm[1]), norm[2]
    channels, (last, width) = x.shape[-1], down.shape
    out = x.new_empty((*x.shape[:-1], last))
    if not out.numel():
        return out
    x = x.contiguous()
    more = x if add is None else add.contiguous()
    rows = x.numel() // channels
    middle = x.new_empty((rows, width))
    cut = tuning or untimed_rows(x.dtype)
    # As for the attention: Triton's interpreter is given floats.
    widen = not isinstance(_gate, triton.JITFunction)
    both: Any = {
        "ROWS": cut.rows, "STEP": cut.step, "COLUMNS": cut.columns, "WIDTH": width, "WIDEN": widen,
        "PRECISION": "ieee" if x.dtype == torch.float32 else "tf32",
        "num_warps": cut.warps, "num_stages": cut.stages,
    }  # fmt: skip
    tiles = triton.cdiv(rows, cut.rows)
    _gate[(tiles, triton.cdiv(width, cut.columns))](
        x, middle, up, up if up_bias is None else up_bias,
        up if norm_weight is None else norm_weight, up if norm_bias is None else norm_bias,
        eps or 0.0, rows, CHANNELS=channels, NORM=eps is not None,
        AFFINE=norm_weight is not None, BIAS=up_bias is not None, **both,
    )  # fmt: skip
    project_rows[(tiles, triton.cdiv(last, cut.columns))](
        middle, more, out, down, down if down_bias is None else down_bias,
        rows, rows, 0, last, 0, 0, last, 0,
        TOKENS=1, CHANNELS=last, BIAS=down_bias is not None, ADD=add is not None, **both,
    )  # fmt: skip
    return out


def _dense(tensor: Any) -> Any:
    return None if tensor is None else tensor.contiguous()
