# pyright: reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false
# pyright: reportInvalidTypeForm=false, reportPossiblyUnboundVariable=false
"""Attention over few tokens from the norm before it to the sum after it, in Triton's language.

A program takes whole groups, their tokens being the rows of one tile. The tile's statistics are
found first; then, head by head, blocks of channels are normalised and multiplied by the head's
columns of the three weights; the scores of all rows with all rows are one small product, of which
only those within a group count. What a head attends to is multiplied by its rows of the output's
weight and summed in registers where the channels fit there (`Tuning.whole`); wider ones are written
once, and `project_rows` multiplies, adds and lays out. Sums are in float32, products of float32
exact.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .triton_kernels import tl, triton
from .triton_tuning import Tuning, tuning_of


@triton.jit
def product(
    left, right, total, PRECISION: tl.constexpr, WIDEN: tl.constexpr
):  # fmt: skip
    """Adds left times right to a total in float32."""
    if WIDEN:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, total, input_precision=PRECISION)


@triton.jit
def statistics(
    x_row, there, eps, CHANNELS: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr
):  # fmt: skip
    """Mean and inverse deviation of each row of C channels, for its layer norm."""
    # The mean first, then what is off it: a single pass would subtract large sums of squares.
    mean = tl.zeros((ROWS,), tl.float32)
    for first in range(0, CHANNELS, STEP):
        c = first + tl.arange(0, STEP)
        held = there[:, None] & (c < CHANNELS)[None, :]
        mean += tl.sum(tl.load(x_row[:, None] + c[None, :], held, 0.0).to(tl.float32), 1)
    mean = mean / CHANNELS
    squares = tl.zeros((ROWS,), tl.float32)
    for first in range(0, CHANNELS, STEP):
        c = first + tl.arange(0, STEP)
        held = there[:, None] & (c < CHANNELS)[None, :]
        block = tl.load(x_row[:, None] + c[None, :], held, 0.0).to(tl.float32)
        off = tl.where(held, block - mean[:, None], 0.0)
        squares += tl.sum(off * off, 1)
    return mean, 1.0 / tl.sqrt(squares / CHANNELS + eps)


@triton.jit
def _finish(
    total, bias, add, out, outer, within, token, there, column,
    a_outer, a_inner, a_token, o_outer, o_inner, o_token,
    CHANNELS: tl.constexpr, BIAS: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    asked = column < CHANNELS
    held = there[:, None] & asked[None, :]
    if BIAS:
        total += tl.load(bias + column, asked, 0.0).to(tl.float32)[None, :]
    if ADD:
        row = add + outer * a_outer + within * a_inner + token * a_token
        total += tl.load(row[:, None] + column[None, :], held, 0.0).to(tl.float32)
    row = out + outer * o_outer + within * o_inner + token * o_token
    tl.store(row[:, None] + column[None, :], total.to(out.dtype.element_ty), held)


@triton.jit
def _attend(
    x, add, out, query, key, value, project, bias, norm_weight, norm_bias, eps, scale,
    inner, groups, x_outer, x_inner, x_token, a_outer, a_inner, a_token, o_outer, o_inner, o_token,
    TOKENS: tl.constexpr, CHANNELS: tl.constexpr, HEADS: tl.constexpr, HEAD: tl.constexpr,
    WIDE: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr, DEPTH: tl.constexpr,
    NORM: tl.constexpr, AFFINE: tl.constexpr, BIAS: tl.constexpr, ADD: tl.constexpr,
    WHOLE: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    # Offsets may pass two thousand million: a full-size network's values do.
    row = tl.arange(0, ROWS)
    per: tl.constexpr = ROWS // TOKENS
    group_of = row // TOKENS
    group = tl.program_id(0).to(tl.int64) * per + group_of
    token = row % TOKENS
    there = (group_of < per) & (group < groups)
    outer, within = group // inner, group % inner
    x_row = x + outer * x_outer + within * x_inner + token * x_token
    kind = x.dtype.element_ty

    mean, spread = there.to(tl.float32), there.to(tl.float32)
    if NORM:
        mean, spread = statistics(x_row, there, eps, CHANNELS, ROWS, STEP)

    d = tl.arange(0, DEPTH)
    wide = tl.arange(0, WIDE)
    if WHOLE:
        total = tl.zeros((ROWS, WIDE), tl.float32)
    for head in range(0, HEADS):
        q = tl.zeros((ROWS, DEPTH), tl.float32)
        k = tl.zeros((ROWS, DEPTH), tl.float32)
        v = tl.zeros((ROWS, DEPTH), tl.float32)
        column = (head * HEAD + d) * CHANNELS
        for first in range(0, CHANNELS, STEP):
            c = first + tl.arange(0, STEP)
            held = there[:, None] & (c < CHANNELS)[None, :]
            block = tl.load(x_row[:, None] + c[None, :], held, 0.0)
            if NORM:
                block = (block.to(tl.float32) - mean[:, None]) * spread[:, None]
                if AFFINE:
                    by = tl.load(norm_weight + c, c < CHANNELS, 0.0).to(tl.float32)
                    plus = tl.load(norm_bias + c, c < CHANNELS, 0.0).to(tl.float32)
                    block = block * by[None, :] + plus[None, :]
                block = block.to(kind)
            at = c[:, None] + column[None, :]
            known = (c < CHANNELS)[:, None] & (d < HEAD)[None, :]
            q = product(block, tl.load(query + at, known, 0.0), q, PRECISION, WIDEN)
            k = product(block, tl.load(key + at, known, 0.0), k, PRECISION, WIDEN)
            v = product(block, tl.load(value + at, known, 0.0), v, PRECISION, WIDEN)
        score = tl.zeros((ROWS, ROWS), tl.float32)
        score = product(q.to(kind), tl.trans(k.to(kind)), score, PRECISION, WIDEN) * scale
        score = tl.where(group_of[:, None] == group_of[None, :], score, float("-inf"))
        weight = tl.exp(score - tl.max(score, 1)[:, None])
        found = tl.zeros((ROWS, DEPTH), tl.float32)
        found = product(weight.to(kind), v.to(kind), found, PRECISION, WIDEN)
        found = (found / tl.sum(weight, 1)[:, None]).to(kind)
        if WHOLE:
            at = (head * HEAD + d)[:, None] + (wide * CHANNELS)[None, :]
            known = (d < HEAD)[:, None] & (wide < CHANNELS)[None, :]
            left = tl.load(project + at, known, 0.0)
            total = product(found, left, total, PRECISION, WIDEN)
        else:
            at = (group * TOKENS + token)[:, None] * CHANNELS + (head * HEAD + d)[None, :]
            tl.store(out + at, found, there[:, None] & (d < HEAD)[None, :])
    if WHOLE:
        _finish(
            total, bias, add, out, outer, within, token, there, wide,
            a_outer, a_inner, a_token, o_outer, o_inner, o_token, CHANNELS, BIAS, ADD,
        )  # fmt: skip


@triton.jit
def project_rows(
    x, add, out, project, bias, inner, rows,
    a_outer, a_inner, a_token, o_outer, o_inner, o_token,
    TOKENS: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, ROWS: tl.constexpr,
    STEP: tl.constexpr, COLUMNS: tl.constexpr, BIAS: tl.constexpr, ADD: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Multiplies rows by a weight, adds bias and residual, and stores them as `out` lies."""
    # x has its rows in the order of the groups; what is added and what is written lie as x's x did.
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there, asked = row < rows, column < CHANNELS
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, WIDTH, STEP):
        c = first + tl.arange(0, STEP)
        inside = c < WIDTH
        at = row[:, None] * WIDTH + c[None, :]
        block = tl.load(x + at, there[:, None] & inside[None, :], 0.0)
        at = c[:, None] + (column * WIDTH)[None, :]
        left = tl.load(project + at, inside[:, None] & asked[None, :], 0.0)
        total = product(block, left, total, PRECISION, WIDEN)
    group, token = row // TOKENS, row % TOKENS
    outer, within = group // inner, group % inner
    _finish(
        total, bias, add, out, outer, within, token, there, column,
        a_outer, a_inner, a_token, o_outer, o_inner, o_token, CHANNELS, BIAS, ADD,
    )  # fmt: skip


def launch(
    x: Tensor,
    norm: tuple[Tensor | None, Tensor | None, float | None],
    weights: tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None],
    heads: int,
    scale: float,
    add: Tensor | None,
    tuning: Tuning | None = None,
) -> Tensor:
    """The operator `turbo4d::token_attention` by the kernels.

    Args:
        x: [G, P, T, C], channels side by side, all else of any strides.
        norm: weight, bias and epsilon of a layer norm of `x`; no epsilon, no norm.
        weights: of queries, keys, values and output, [C, C], and the output's bias.
        heads: N.
        scale: of the scores.
        add: as `x`, added to the result.
        tuning: how a program is cut; what `tuning_of` has where None.

    Returns:
        [G, P, T, C], lying as `x` does.
    """
    outer, inner, tokens, channels = x.shape
    out = torch.empty_like(x)
    if not out.numel():
        return out
    cut = tuning or tuning_of(channels, heads, tokens, x.dtype)
    norm_weight, norm_bias, eps = norm
    query, key, value, project, bias = weights
    groups = outer * inner
    attended = out if cut.whole else x.new_empty((groups * tokens, channels))
    strides: Any = (*x.stride()[:3], *(out if add is None else add).stride()[:3], *out.stride()[:3])
    first, second = constants(channels, heads, tokens, x.dtype, cut)
    # Triton's interpreter multiplies the bits of bfloat16 as whole numbers: it is given floats.
    widen = not isinstance(_attend, triton.JITFunction)
    both: Any = {"BIAS": bias is not None, "ADD": add is not None, "WIDEN": widen}
    both |= {"num_warps": cut.warps, "num_stages": cut.stages}
    _attend[(triton.cdiv(groups, cut.rows // tokens),)](
        x, x if add is None else add, attended, query, key, value, project,
        project if bias is None else bias, project if norm_weight is None else norm_weight,
        project if norm_bias is None else norm_bias, eps or 0.0, scale, inner, groups, *strides,
        NORM=eps is not None, AFFINE=norm_weight is not None, **first, **both,
    )  # fmt: skip
    if not cut.whole:
        rows = groups * tokens
        project_rows[(triton.cdiv(rows, cut.rows), triton.cdiv(channels, cut.columns))](
            attended, x if add is None else add, out, project, project if bias is None else bias,
            inner, rows, *strides[3:], **second, **both,
        )  # fmt: skip
    return out


def constants(
    channels: int, heads: int, tokens: int, dtype: torch.dtype, cut: Tuning
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is known of the two kernels when they are compiled.

    Args:
        channels: C.
        heads: N.
        tokens: of a group.
        dtype: of the values.
        cut: how the work is cut.
    """
    head = channels // heads
    both = {
        "TOKENS": tokens, "CHANNELS": channels, "ROWS": cut.rows, "STEP": cut.step,
        "PRECISION": "ieee" if dtype == torch.float32 else "tf32",
    }  # fmt: skip
    first = {
        "HEADS": heads, "HEAD": head, "DEPTH": max(16, triton.next_power_of_2(head)),
        "WIDE": max(16, triton.next_power_of_2(channels)), "WHOLE": cut.whole,
    }  # fmt: skip
    return {**both, **first}, {**both, "WIDTH": channels, "COLUMNS": cut.columns}
